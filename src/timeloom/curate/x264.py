"""Frames with times in ticks as H.264, by PyAV's x264: for clips at training size and for what a cut encodes anew."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame


@dataclass(frozen=True)
class Quality:
    """How x264 encodes."""

    crf: int
    preset: str
    threads: int = 1

    def options(self) -> dict[str, str]:
        """As FFmpeg calls them. Macroblock trees are left out: with x264's AVX code, equal frames give other bytes."""
        return {"crf": str(self.crf), "preset": self.preset, "mbtree": "0"}


@dataclass(frozen=True)
class Clock:
    """When frames are shown: in ticks, and how many a second on average."""

    tick_s: Fraction
    rate: Fraction


class Mp4Encoder:
    """An mp4 of frames that come with their times; the first of them sets size, pixels and colours.

    Args:
        target: a path, or a file in memory.
        rotation: degrees counter-clockwise that a player shall turn the picture.
        pixel_aspect: width of a pixel over its height.
    """

    def __init__(
        self,
        target: Path | io.BytesIO,
        first: VideoFrame,
        clock: Clock,
        quality: Quality,
        rotation: int = 0,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self._clock = clock
        self._container = av.open(str(target) if isinstance(target, Path) else target, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=clock.rate, options=quality.options())
        self._stream.time_base = clock.tick_s
        if rotation:
            self._stream.set_display_rotation(rotation)
        set_up(self._stream.codec_context, first, clock, quality, pixel_aspect)
        self._last: tuple[VideoFrame, int] | None = None
        self.num_frames = 0

    def add(self, frame: VideoFrame, pts: int) -> None:
        """A frame shown at `pts`, 0 for the first. The frame's own stamps are changed."""
        self._encode_last(pts)
        self._last = frame, pts

    def finish(self, end_pts: int) -> None:
        """The last frame ends at `end_pts`; the file is whole."""
        self._encode_last(end_pts)
        self._container.mux(self._stream.encode())
        self._container.close()

    def abandon(self) -> None:
        """Leave the file unfinished."""
        self._container.close()

    def _encode_last(self, end_pts: int) -> None:
        if self._last is not None:
            frame, pts = self._last
            self._container.mux(self._stream.encode(stamped(frame, pts, end_pts - pts, self._clock)))
            self.num_frames += 1


def encode_bare(
    frames: list[tuple[VideoFrame, int]], clock: Clock, quality: Quality, pixel_aspect: Fraction
) -> list[Packet]:
    """Frames with their times as packets without a container, one a frame and in the same order.

    Annex B; the first begins with its parameter sets.
    """
    context = CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.options = {**quality.options(), "bf": "0"}
    context.framerate = clock.rate
    set_up(context, frames[0][0], clock, quality, pixel_aspect)
    packets: list[Packet] = []
    for frame, pts in frames:
        packets += context.encode(stamped(frame, pts, 0, clock))
    return packets + context.encode(None)


def set_up(
    context: VideoCodecContext, first: VideoFrame, clock: Clock, quality: Quality, pixel_aspect: Fraction
) -> None:
    """Make `context` an encoder of frames like `first`."""
    context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
    context.time_base = clock.tick_s
    context.thread_count = quality.threads
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    if pixel_aspect != 1:
        context.sample_aspect_ratio = pixel_aspect


def stamped(frame: VideoFrame, pts: int, duration: int, clock: Clock) -> VideoFrame:
    """`frame` itself with other times, for an encoder, which is left to choose the kind of picture."""
    frame.pts, frame.duration, frame.time_base = pts, duration, clock.tick_s
    frame.pict_type = PictureType.NONE
    return frame
