"""The packets of a video: which there are, and H.264's units inside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from timeloom.errors import TimeloomError

IDR, SEQUENCE, PICTURE = 5, 7, 8  # types of H.264's units (ITU-T H.264, table 7-1)
START = b"\x00\x00\x01"


@dataclass(frozen=True)
class PacketFacts:
    """What is known of a packet without decoding it."""

    pts: int
    keyframe: bool
    """A decoder can begin here; frames behind it that are shown before it may lack what they refer to."""
    closed: bool
    """Nothing behind it refers to anything before it (H.264's IDR)."""
    hidden: bool
    """Decoded for others' sake only: an edit list cuts it off."""


class Units:
    """H.264's units in packets, as the container has them: each after its length (mp4, mkv), or after a start code."""

    def __init__(self, extradata: bytes) -> None:
        self.length_size = (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" else 0
        """Bytes of a length; 0 for start codes."""
        self.parameters = _parameters(extradata) if self.length_size else split(extradata)
        """Sequence and picture parameter sets of the whole stream."""

    def of(self, content: bytes) -> list[bytes]:
        """The units of a packet."""
        if not self.length_size:
            return split(content)
        units, place = [], 0
        while place + self.length_size <= len(content):
            size = int.from_bytes(content[place : place + self.length_size], "big")
            place += self.length_size
            units.append(content[place : place + size])
            place += size
        return units

    def join(self, units: list[bytes]) -> bytes:
        """A packet of these units."""
        if not self.length_size:
            return b"".join(b"\x00" + START + unit for unit in units)
        return b"".join(len(unit).to_bytes(self.length_size, "big") + unit for unit in units)

    def is_idr(self, content: bytes) -> bool:
        return any(unit[0] & 31 == IDR for unit in self.of(content) if unit)


def split(content: bytes) -> list[bytes]:
    """Units between start codes (Annex B)."""
    return [part.rstrip(b"\x00") for part in content.split(START) if part.rstrip(b"\x00")]


def _parameters(avcc: bytes) -> list[bytes]:
    """The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1)."""
    sets: list[bytes] = []
    place = 5
    for mask in (31, 255):
        count = avcc[place] & mask
        place += 1
        for _ in range(count):
            size = int.from_bytes(avcc[place : place + 2], "big")
            sets.append(avcc[place + 2 : place + 2 + size])
            place += 2 + size
    return sets


class PacketFile:
    """A video file, read packet by packet. Its user closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        extradata = self.stream.codec_context.extradata or b""
        self.units = Units(bytes(extradata)) if self.stream.codec_context.name == "h264" else None

    def _open(self) -> None:
        try:
            self._container: InputContainer = av.open(
                str(self.path.resolve()), metadata_errors="replace", options={"protocol_whitelist": "file"}
            )
        except (av.error.FFmpegError, OSError) as error:
            raise TimeloomError(f"{self.path}: cannot be opened ({error.strerror}).") from error
        films = (s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic)
        stream = next(films, None)
        if stream is None:
            self._container.close()
            raise TimeloomError(f"{self.path}: holds no film to cut.")
        self.stream: VideoStream = stream

    def close(self) -> None:
        self._container.close()

    def facts(self) -> list[PacketFacts] | None:
        """All packets in the order of decoding; None where not every one says when it is shown."""
        found = []
        for packet in self._packets():
            if packet.pts is None:
                return None
            closed = bool(packet.is_keyframe and self.units and self.units.is_idr(bytes(packet)))
            found.append(PacketFacts(packet.pts, packet.is_keyframe, closed, packet.is_discard))
        return found

    def read_from(self, pts: int) -> Iterator[Packet]:
        """Packets in the order of decoding, from the keyframe on that is shown at `pts`."""
        for reopen in (False, True):  # where seeking does not lead there (transport streams), from the beginning
            if reopen:
                self.close()
                self._open()
            else:
                try:
                    self._container.seek(pts, stream=self.stream, backward=True)
                except av.error.FFmpegError:
                    continue
            packets = self._packets()
            for packet in packets:
                if packet.pts == pts:
                    yield packet
                    yield from packets
                    return

    def _packets(self) -> Iterator[Packet]:
        try:
            yield from (packet for packet in self._container.demux(self.stream) if packet.size)
        except av.error.FFmpegError as error:
            raise TimeloomError(f"{self.path}: is damaged ({error.strerror}).") from error
