"""Scenes as files of their own, exact to the frame: packets copied where possible, the rest encoded anew.

A virtual clip needs no file: it is (`scan.seconds(scene.start_pts)`, `scan.seconds(scene.end_pts)`) of the source.

Of a scene of H.264, what can be copied begins at the first keyframe that nothing behind it reaches across (IDR; where
the scene itself begins at a keyframe, that one), and ends before the first packet that is shown after the scene. The
head before it and the few frames behind it, whose references lie beyond the end, are encoded anew; so no file holds a
hidden frame. Each part begins with its own parameter sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from pydantic import Field

from timeloom.curate.packets import PacketFacts, PacketFile, split
from timeloom.curate.scene import Scan, Scene
from timeloom.curate.x264 import Clock, Mp4Encoder, Quality, encode_bare
from timeloom.data.container import ContainerMovie
from timeloom.data.video import open_movie
from timeloom.data.whole_file import replacing
from timeloom.errors import TimeloomError
from timeloom.schema import Schema


class CutOptions(Schema):
    """How scenes become files."""

    method: Literal["smart", "encode"] = "smart"
    """"smart" copies packets from the first keyframe on and encodes only the head (H.264; other codecs are encoded);
    "encode" encodes every frame."""
    crf: int = Field(default=16, ge=0, le=51)
    """x264's quality of what is encoded."""
    preset: str = "veryfast"
    """x264's preset."""
    threads: int = Field(default=1, ge=0)
    """Threads of decoder and encoder; 0 leaves it to FFmpeg."""


@dataclass(frozen=True)
class Cut:
    """A file that holds exactly one scene."""

    path: Path
    method: Literal["copy", "smart", "encode"]
    """How it was made: all packets copied, all but some frames at the ends, or none."""
    num_frames: int
    encoded_frames: int
    """How many of them were encoded anew."""
    size: int
    """Bytes."""


def cut(path: Path, scan: Scan, wanted: Iterable[tuple[Scene, Path]], options: CutOptions) -> Iterator[Cut]:
    """Write scenes of the video `path` as mp4 files, without sound; yields each as it is whole.

    `wanted` pairs each scene with its file. Files appear whole or not at all; existing ones are replaced. Rotation and
    pixel aspect are carried over; edit lists and start times are not: a file starts at 0.

    Raises: TimeloomError, naming the file, where the source or the target refuses, or a scene's frames are not those
    that the scan counted.
    """
    with closing(PacketFile(path)) as source:
        copies = options.method == "smart" and source.units is not None and not scan.interlaced
        packets = source.facts() if copies else None
        cutter = _Cutter(path, scan, source, packets, options)
        for scene, target in wanted:
            with replacing(target) as file:
                method, encoded = cutter.write(scene, Path(file.name))
            yield Cut(target, method, scene.num_frames, encoded, target.stat().st_size)


@dataclass(frozen=True)
class _Plan:
    """Which frames of a scene are copied, by their pts in the order of decoding; the others lie before and behind."""

    copied: list[int]
    head: list[int]
    tail: list[int]


class _Cutter:
    def __init__(
        self, path: Path, scan: Scan, source: PacketFile, packets: list[PacketFacts] | None, options: CutOptions
    ) -> None:
        self.path, self.scan, self.source, self.packets = path, scan, source, packets
        self.clock = Clock(scan.time_base, Fraction(scan.fps).limit_denominator(1001))
        self.quality = Quality(options.crf, options.preset, options.threads)
        self.threads = options.threads

    def write(self, scene: Scene, target: Path) -> tuple[Literal["copy", "smart", "encode"], int]:
        """The scene as the file `target`: how it was made, and how many frames were encoded."""
        plan = self._plan(scene)
        if plan is None:
            self._encode(scene, target)
            return "encode", scene.num_frames
        self._join(scene, plan, target)
        encoded = len(plan.head) + len(plan.tail)
        return ("smart" if encoded else "copy"), encoded

    def _plan(self, scene: Scene) -> _Plan | None:
        """What can be copied; None where that is nothing, or the packets are not the frames that the scan counted."""
        if self.packets is None or scene.corrupt_share:
            return None
        inside = [
            (place, packet)
            for place, packet in enumerate(self.packets)
            if scene.start_pts <= packet.pts < scene.end_pts and not packet.hidden
        ]
        shown = sorted(packet.pts for _, packet in inside)
        if len(set(shown)) != scene.num_frames or shown[0] != scene.start_pts:
            return None
        begins = (p for p, packet in inside if packet.closed or (packet.keyframe and packet.pts == scene.start_pts))
        begin = next(begins, None)
        if begin is None:
            return None
        copied: list[int] = []
        for packet in self.packets[begin:]:
            if packet.pts >= scene.end_pts or packet.hidden:
                break
            if packet.pts >= self.packets[begin].pts:  # else shown before the keyframe, and refers across it
                copied.append(packet.pts)
        head = [pts for pts in shown if pts < copied[0]]
        tail = sorted(set(shown) - set(head) - set(copied))
        # Copied frames must be a stretch without gaps: what a frame in the tail precedes goes into the tail.
        while tail and max(copied) > tail[0]:
            tail = sorted({*tail, copied.pop()})
        return _Plan(copied, head, tail)

    def _join(self, scene: Scene, plan: _Plan, target: Path) -> None:
        """Head, copy and tail in one stream."""
        units = self.source.units
        assert units is not None  # else there is no plan
        order = [*plan.head, *plan.copied, *plan.tail]
        times = _Times(order, scene)
        with av.open(str(target), "w", format="mp4") as container:
            stream = container.add_stream_from_template(self.source.stream)
            stream.time_base = self.scan.time_base

            def mux(content: bytes, pts: int, keyframe: bool) -> None:
                packet = Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = stream, self.scan.time_base, keyframe
                packet.pts, packet.dts, packet.duration = times.of(pts)
                container.mux_one(packet)

            for pts, content in self._encoded(plan.head):
                mux(content, pts, pts == plan.head[0])
            left = set(plan.copied)
            mixed = bool(plan.head or plan.tail)
            for packet in self.source.read_from(plan.copied[0]):
                if packet.pts not in left:
                    continue
                content = bytes(packet)
                if mixed and packet.is_keyframe:  # a reader that jumps here may have read another part's sets before
                    own = [unit for unit in units.of(content) if unit[0] & 31 not in (7, 8)]
                    content = units.join([*units.parameters, *own])
                mux(content, packet.pts, packet.is_keyframe)
                left.remove(packet.pts)
                if not left:
                    break
            if left:
                raise TimeloomError(f"{self.path}: {len(left)} of its packets are not where they were.")
            for pts, content in self._encoded(plan.tail):
                mux(content, pts, pts == plan.tail[0])

    def _encoded(self, wanted: list[int]) -> Iterator[tuple[int, bytes]]:
        """Frames of the source encoded anew, each as a packet like the source's."""
        units = self.source.units
        if not wanted or units is None:
            return
        frames = list(self._decoded(wanted[0], wanted[-1] + 1))
        if [pts for pts, _ in frames] != wanted:
            raise TimeloomError(f"{self.path}: its frames near {self.scan.seconds(wanted[0]):.3f} s cannot be decoded.")
        stamped = [(frame, pts - wanted[0]) for pts, frame in frames]
        packets = encode_bare(stamped, self.clock, self.quality, self.scan.pixel_aspect)
        for pts, packet in zip(wanted, packets, strict=True):
            yield pts, units.join(split(bytes(packet)))

    def _encode(self, scene: Scene, target: Path) -> None:
        """Every frame encoded anew."""
        mp4: Mp4Encoder | None = None
        for pts, frame in self._decoded(scene.start_pts, scene.end_pts):
            frame = _encodable(frame)
            if mp4 is None:
                mp4 = Mp4Encoder(target, frame, self.clock, self.quality, self.scan.rotation, self.scan.pixel_aspect)
            mp4.add(frame, pts - scene.start_pts)
        if mp4 is not None:
            mp4.finish(scene.end_pts - scene.start_pts)
        found = mp4.num_frames if mp4 is not None else 0
        if found != scene.num_frames:
            where = f"from {self.scan.seconds(scene.start_pts):.3f} s on"
            raise TimeloomError(f"{self.path}: has {found} frames {where}, not {scene.num_frames}; scan it again.")

    def _decoded(self, start_pts: int, end_pts: int) -> Iterator[tuple[int, VideoFrame]]:
        """The frames of a span with their pts."""
        movie = open_movie(self.path, self.threads, past_damage=True)
        with closing(movie):
            assert isinstance(movie, ContainerMovie)  # else it could not be scanned
            for shown in movie.ticked_frames(start_pts):
                if shown.pts >= end_pts:
                    return
                if shown.pts >= start_pts:
                    yield shown.pts, shown.picture


class _Times:
    """When the packets of a scene are shown and decoded, in ticks from its start."""

    def __init__(self, order: list[int], scene: Scene) -> None:
        shown = sorted(order)
        ends = [*shown[1:], scene.end_pts]
        # Decoded in the order given, at the times at which frames are shown, as much earlier as the order needs.
        early = max(time - pts for time, pts in zip(shown, order, strict=True))
        starts = {pts: time - early for pts, time in zip(order, shown, strict=True)}
        lasts = dict(zip(order, (end - start for start, end in zip(shown, ends, strict=True)), strict=True))
        self._times = {pts: (pts - scene.start_pts, starts[pts] - scene.start_pts, lasts[pts]) for pts in order}

    def of(self, pts: int) -> tuple[int, int, int]:
        """(pts, dts, duration)."""
        return self._times[pts]


def _encodable(frame: VideoFrame) -> VideoFrame:
    """The frame in a pixel format that players know."""
    known = frame.format.name in ("yuv420p", "yuvj420p", "yuv420p10le")
    return frame if known else frame.reformat(format="yuv420p", threads=1)
