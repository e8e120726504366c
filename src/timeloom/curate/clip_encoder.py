"""Clips at training size, encoded from the very frames that a scan decodes."""

from __future__ import annotations

import io
from collections import deque

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from timeloom.curate.options import ClipOptions
from timeloom.curate.x264 import Clock, Mp4Encoder, Quality
from timeloom.data.container import UNSPECIFIED_COLORSPACE, ContainerMovie, TickedFrame, is_untagged_hd
from timeloom.data.write import BT709, LIMITED_RANGE

SD_COLORS = 6  # SMPTE 170M, which is BT.601's matrix
FULL_RANGE = 2
SCALED_DIRECTLY = ("yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le")


class ClipEncoder:
    """Takes the frames of a video in order; gives the mp4 of each scene as it ends.

    Frames wait until it is certain to which scene they belong (see `CutFinder.open_from`).
    """

    def __init__(self, movie: ContainerMovie, options: ClipOptions) -> None:
        self._movie, self._options = movie, options
        height, width = movie.displayed
        scale = min(1.0, options.short_side / min(height, width))
        self._height, self._width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
        self._reformatter = VideoReformatter()
        self._clock = Clock(movie.tick_s, 1 / movie.interval_s)
        self._waiting: deque[TickedFrame] = deque()
        self._start: int | None = None
        self._target = io.BytesIO()
        self._mp4: Mp4Encoder | None = None

    def take(self, shown: TickedFrame) -> None:
        """The next frame of the video."""
        self._waiting.append(shown)

    def encode_before(self, open_from: int | None) -> None:
        """The frames before this pts belong to the scene that goes on; None: all do."""
        while self._waiting and (open_from is None or self._waiting[0].pts < open_from):
            self._encode(self._waiting.popleft())

    def end(self, end_pts: int) -> bytes | None:
        """The scene ends here: its mp4, or None where it is too long or too short."""
        self.encode_before(end_pts)
        mp4, start = self._mp4, self._start
        self._mp4 = self._start = None
        if mp4 is None or start is None:
            return None
        mp4.finish(end_pts - start)
        return self._target.getvalue() if self._wanted(float((end_pts - start) * self._clock.tick_s)) else None

    def _wanted(self, length_s: float) -> bool:
        return self._options.min_duration_s <= length_s <= self._options.max_duration_s

    def _encode(self, shown: TickedFrame) -> None:
        if self._start is None:
            self._start, self._target = shown.pts, io.BytesIO()
            quality = Quality(self._options.crf, self._options.preset)
            self._mp4 = Mp4Encoder(self._target, self._small(shown.picture), self._clock, quality)
        if self._mp4 is None:
            return
        if (shown.pts - self._start) * self._clock.tick_s > self._options.max_duration_s:
            self._mp4.abandon()
            self._mp4 = None
            return
        self._mp4.add(self._small(shown.picture), shown.pts - self._start)

    def _small(self, frame: VideoFrame) -> VideoFrame:
        """The frame as displayed, at training size, with its colours named: small ones are else taken for BT.601."""
        if self._movie.quarter_turns or frame.format.name not in SCALED_DIRECTLY or frame.color_range == FULL_RANGE:
            image = self._movie.draw(frame, (self._height, self._width))
            small = VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            small = small.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=Interpolation.AREA)
            small.colorspace, small.color_range = BT709, LIMITED_RANGE
            return small
        small = self._reformatter.reformat(
            frame, self._width, self._height, "yuv420p", interpolation=Interpolation.BICUBIC, threads=1
        )
        if small.colorspace == UNSPECIFIED_COLORSPACE:
            small.colorspace = BT709 if is_untagged_hd(frame) else SD_COLORS
        return small
