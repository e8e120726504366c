"""Films (mp4, webm, mkv, avi, ...) through PyAV, which brings FFmpeg.

What the decoder leaves to its caller is done here: edit lists and start times (times count from the first frame that is
shown), rotation, sample aspect ratio, interlacing (bwdif), untagged high-definition colour, damage. Not done: HDR is
not tone-mapped, mirrored display matrices are not flipped, and turns are rounded to quarter turns.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import av.filter
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream

from timeloom.data.clip import Frames
from timeloom.data.movie import Size, TimedFrame, VideoInfo, centre_crop, covering
from timeloom.errors import TimeloomError

# Bicubic in swscale widens its support when it shrinks: antialiased, like Pillow's.
RESIZE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
WORTH_SEEKING_S = 1.0
UNSPECIFIED_COLORSPACE = 2
DISCARDED = 2  # AVINDEX_DISCARD_FRAME: decoded for others' sake, hidden by an edit list


class TickedFrame(NamedTuple):
    """A decoded frame with its times on the file's own clock."""

    pts: int
    """When it is shown, in ticks."""
    end_pts: int
    """When it ends, by its own account."""
    picture: VideoFrame


class ContainerMovie:
    """A video file opened by PyAV.

    Args:
        content: the file's, where it does not lie at `path`.
        threads: of the decoder; 0 leaves it to FFmpeg. Many readers side by side beat many threads in one.
        past_damage: go on behind packets that cannot be decoded, and collect in `failed` when they were due.

    Raises `TimeloomError` for files without a picture that can be decoded, and on the way for damaged ones.
    """

    def __init__(self, path: Path, content: bytes | None = None, threads: int = 1, past_damage: bool = False) -> None:
        self.path, self._content = path, content
        self._threads, self._past_damage = threads, past_damage
        self.failed: list[int | None] = []
        self._open()
        try:
            frames = self._decode()
            first = next(frames, None)
            if first is None:
                raise TimeloomError(f"{path}: has a video stream, but no frame in it can be decoded.")
            self._measure(first)
            self._from_beginning = chain([first], frames)
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        try:
            # Absolute, so that FFmpeg takes no file name for a protocol ("a:b.mp4").
            file = str(self.path.resolve()) if self._content is None else io.BytesIO(self._content)
            self._container = av.open(file, metadata_errors="replace", options={"protocol_whitelist": "file"})
        except av.error.FFmpegError as error:
            raise TimeloomError(f"{self.path}: {self._why_not_opened(error)}") from error
        try:
            self._stream = self._picture_stream()
            self._refuse_if_cut_short()
            self._stream.codec_context.thread_count = self._threads
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        self._container.close()

    def tags(self) -> dict[str, str]:
        return dict(self._container.metadata)

    def probe(self) -> VideoInfo:
        return VideoInfo(
            width=self.displayed[1],
            height=self.displayed[0],
            fps=float(1 / self.interval_s),
            duration_s=float(self._end() - self.first_s),
            num_frames=self._count(),
            codec=self.codec,
        )

    def frames(self, start_s: float) -> Iterator[TimedFrame]:
        decoded = self._from(start_s)
        time = Fraction(0)
        for frame in self._deinterlaced(decoded):
            if frame.pts is not None:
                time = frame.pts * _time_base(frame) - self.first_s
            duration = frame.duration * _time_base(frame) if frame.duration else self.interval_s
            yield TimedFrame(float(time), float(duration), partial(self.draw, frame))
            time += duration

    def ticked_frames(self, start_pts: int | None = None) -> Iterator[TickedFrame]:
        """Every frame, made whole, with its times in ticks, from the one shown at `start_pts` or an earlier one on.
        Only once, and instead of `frames`."""
        start_s = 0.0 if start_pts is None else float(start_pts * self.tick_s - self.first_s)
        end = 0
        ticks: Fraction | int = 0
        for frame in self._deinterlaced(self._from(start_s)):
            if not ticks:  # the same for all frames, and slow to ask of each
                ticks = 1 if frame.time_base == self.tick_s else _time_base(frame) / self.tick_s
            pts = end if frame.pts is None else round(frame.pts * ticks)
            duration = round(frame.duration * ticks if frame.duration else self.interval_s / self.tick_s)
            end = pts + max(1, duration)
            yield TickedFrame(pts, end, frame)

    def _picture_stream(self) -> VideoStream:
        """The first video stream that is not a cover picture."""
        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                return stream
        kinds = "a cover picture" if self._container.streams.video else "no video stream"
        also = " and sound" if self._container.streams.audio else ""
        raise TimeloomError(f"{self.path}: holds {kinds}{also}; there is no film to read.")

    def _refuse_if_cut_short(self) -> None:
        """An index that points behind the end of the file is that of a longer one."""
        entries = self._stream.index_entries
        size = self.path.stat().st_size if self._content is None else len(self._content)
        if len(entries) and entries[-1].pos + entries[-1].size > size:
            raise TimeloomError(f"{self.path}: is cut short; its index lists frames behind the end of the file.")

    def _measure(self, first: VideoFrame) -> None:
        """Take clock, rate, shape and turn from the stream and its first frame."""
        stream = self._stream
        self.tick_s = Fraction(stream.time_base) if stream.time_base else _time_base(first)
        self.first_s = (first.pts or 0) * _time_base(first)
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        self.interval_s = 1 / Fraction(rate) if rate else Fraction(first.duration or 1) * _time_base(first)
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        height, width = first.height, max(1, round(first.width * aspect))
        self.codec, self.interlaced = stream.codec_context.name, bool(first.interlaced_frame)
        self.pixel_aspect, self.stored = aspect, (first.height, first.width)
        self.quarter_turns = round(first.rotation / 90) % 4  # counter-clockwise
        self.displayed = (width, height) if self.quarter_turns % 2 else (height, width)

    def _decode(self) -> Iterator[VideoFrame]:
        """Frames from where the container stands. Damage is an error: its traces would stay until the next keyframe."""
        if self._past_damage:
            yield from self._decode_past_damage()
            return
        time, key_seen = 0.0, False
        try:
            for packet in self._container.demux(self._stream):
                for frame in packet.decode():
                    assert isinstance(frame, VideoFrame)
                    time = frame.time or time
                    key_seen = key_seen or frame.key_frame
                    if frame.is_corrupt and key_seen:  # before the first key, a frame may just lack its reference
                        raise TimeloomError(f"{self.path}: is damaged near {time:.2f} s.")
                    yield frame
        except av.error.FFmpegError as error:
            raise TimeloomError(f"{self.path}: is damaged near {time:.2f} s ({error.strerror}).") from error

    def _decode_past_damage(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.error.FFmpegError:
                self.failed.append(packet.pts if packet is not None else None)
                if packet is None:
                    return

    def _from(self, start_s: float) -> Iterator[VideoFrame]:
        """Frames from the keyframe before `start_s`; from the first one where that is near or seeking fails."""
        if start_s <= WORTH_SEEKING_S:
            return self._from_beginning
        if self._seek(self.first_s + Fraction(start_s)):
            frames = self._decode()
            frame = next(frames, None)
            if frame is not None and frame.pts is not None and frame.pts * _time_base(frame) - self.first_s <= start_s:
                return chain([frame], frames)
        self._reopen()
        return self._decode()

    def _reopen(self) -> None:
        """Back to the very beginning, where seeking may not lead (transport streams)."""
        self._container.close()
        self._open()

    def _seek(self, time: Fraction) -> bool:
        try:
            self._container.seek(int(time / self.tick_s), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return False
        return True

    def _deinterlaced(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Interlaced frames made whole, one frame each; a film whose first frame is progressive passes untouched."""
        first = next(frames, None)
        if first is None:
            return
        if not first.interlaced_frame:
            yield from chain([first], frames)
            return
        graph = av.filter.Graph()
        bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        graph.link_nodes(graph.add_buffer(template=self._stream), bwdif, graph.add("buffersink")).configure()
        for frame in chain([first], frames, [None]):
            graph.vpush(frame)
            while True:
                try:
                    yield graph.vpull()
                except (av.error.BlockingIOError, av.error.EOFError):
                    break

    def draw(self, frame: VideoFrame, size: Size | None) -> Frames:
        """A frame of this movie as `TimedFrame.draw` gives it."""
        target = size or self.displayed
        height, width = covering(self.displayed, target)
        if self.quarter_turns % 2:
            height, width = width, height
        rgb = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if is_untagged_hd(frame) else None,
            interpolation=RESIZE,
        ).to_ndarray()
        return centre_crop(np.rot90(rgb, self.quarter_turns), target)

    def _end(self) -> Fraction:
        """When the last frame ends, on the file's clock: read from the last packets, for headers err."""
        if self._stream.duration is not None:
            length: Fraction | None = self._stream.duration * self.tick_s
        else:
            length = Fraction(self._container.duration, av.time_base) if self._container.duration else None
        if length is not None and self._seek(self.first_s + length):
            end = self._last_packet_end()
            if end is not None:
                return end
        self._reopen()
        return self._last_packet_end() or self.first_s + self.interval_s

    def _last_packet_end(self) -> Fraction | None:
        ends = [
            packet.pts * self.tick_s + (packet.duration * self.tick_s if packet.duration else self.interval_s)
            for packet in self._container.demux(self._stream)
            if packet.pts is not None and not packet.is_discard
        ]
        return max(ends, default=None)

    def _count(self) -> int | None:
        """Frames by the index, less those that an edit list hides; None where the index is not complete."""
        if "mp4" in self._container.format.name:
            return sum(not entry.flags & DISCARDED for entry in self._stream.index_entries) or None
        return self._stream.frames or None

    def _why_not_opened(self, error: av.error.FFmpegError) -> str:
        if not isinstance(error, av.error.InvalidDataError):
            return f"cannot be opened ({error.strerror})."
        if self._content is None:
            with self.path.open("rb") as file:
                head = file.read(8)
        else:
            head = self._content[:8]
        if head[4:] == b"ftyp":
            return "its index (moov) is missing or damaged; the recording or the download was cut short."
        return "is not a video that FFmpeg knows, or its beginning is damaged."


def is_untagged_hd(frame: VideoFrame) -> bool:
    """Whether a frame says nothing of its colours, and is so large that they are BT.709's."""
    return bool(frame.colorspace == UNSPECIFIED_COLORSPACE and frame.height >= 720)


def _time_base(frame: VideoFrame) -> Fraction:
    return Fraction(frame.time_base or 1)
