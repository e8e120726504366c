"""Where scenes begin: PySceneDetect's ContentDetector and AdaptiveDetector, frame by frame as they are decoded.

Their rules are theirs (scenedetect 0.7, BSD-3, detectors/content_detector.py, adaptive_detector.py and FlashFilter in
detector.py), restated for ticks of the file's clock. What is ours is that frames are compared at 64 pixels first, and
in its own way, which is slow, only where that comes near the threshold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from av.video.frame import VideoFrame

from timeloom.curate.difference import Comparer, Difference, Faithful, comparison_size
from timeloom.curate.options import ScanOptions
from timeloom.data.container import ContainerMovie, TickedFrame
from timeloom.errors import TimeloomError

NEAR = 0.7, 1.4
"""Differences at 64 pixels that lie between so many times the threshold are measured again. A mean over 2,304 pixels of
a frame is within some per cent of that over all; what lies further from the threshold is clear."""

Compare = Callable[[Sequence[VideoFrame], VideoFrame | None], list[Difference]]


class CutFinder(Protocol):
    """Takes frames in the order of time, and tells cuts, sometimes a little later."""

    content: float
    """How much the frame pushed last differs from the one before it, as well as was needed."""

    def push(self, shown: TickedFrame, before: VideoFrame | None, coarse: Difference) -> list[int]:
        """Cuts known now that were not known before: pts of the first frames of scenes."""
        ...

    def open_from(self) -> int | None:
        """Cuts that are still to be told lie at this pts or later; None: later than any frame pushed."""
        ...


def cut_finder(movie: ContainerMovie, options: ScanOptions) -> CutFinder:
    """The finder that `options` ask for."""
    ticks = float(movie.interval_s / movie.tick_s)
    size = comparison_size(*movie.stored, options.width)
    if options.detector == "content":
        return ContentFinder(Comparer(Faithful(size), 1), options.threshold, _Length(options.min_scene_frames, ticks))
    if options.detector == "adaptive":
        return AdaptiveFinder(Comparer(Faithful(size), 1), options, _Length(options.min_scene_frames, ticks))
    return PySceneDetectFinder(movie, options, ticks)


class _Length:
    """A number of frames, measured by the clock: as long as so many frames last on average."""

    def __init__(self, num_frames: int, ticks_per_frame: float) -> None:
        self.num_frames, self.ticks_per_frame = num_frames, ticks_per_frame

    def reached(self, start: int, end: int) -> bool:
        return round((end - start) / self.ticks_per_frame) >= self.num_frames


class ContentFinder:
    """ContentDetector: a difference above a threshold, with flashes merged into one cut."""

    def __init__(self, comparer: Comparer, threshold: float, min_length: _Length) -> None:
        self._compare, self._threshold, self._min = comparer.compare, threshold, min_length
        self.content = 0.0
        self._last_above: int | None = None
        self._cut_once = False
        self._merging_from: int | None = None

    def push(self, shown: TickedFrame, before: VideoFrame | None, coarse: Difference) -> list[int]:
        self.content = coarse.content
        if NEAR[0] * self._threshold <= coarse.content < NEAR[1] * self._threshold:
            self.content = self._compare([shown.picture], before)[0].content
        above = self.content >= self._threshold
        return self._merged(shown.pts, above) if self._min.num_frames else [shown.pts] * above

    def open_from(self) -> int | None:
        return self._last_above if self._merging_long() else None

    def _merging_long(self) -> bool:
        if self._merging_from is None or self._last_above is None:
            return False
        return self._min.reached(self._merging_from, self._last_above)

    def _merged(self, pts: int, above: bool) -> list[int]:
        """After the first cut, those that follow each other too fast count as one, at the last of them."""
        if self._last_above is None:
            self._last_above = pts
        apart = self._min.reached(self._last_above, pts)
        if above:
            self._last_above = pts
        if self._merging_from is not None:
            if apart and not above and self._merging_long():
                self._merging_from = None
                return [self._last_above]
        elif above and apart:
            self._cut_once = True
            return [pts]
        elif above and self._cut_once:
            self._merging_from = pts
        return []


class AdaptiveFinder:
    """AdaptiveDetector: a difference that stands out among its neighbours'."""

    def __init__(self, comparer: Comparer, options: ScanOptions, min_length: _Length) -> None:
        self._compare, self._options, self._min = comparer.compare, options, min_length
        self.content = 0.0
        self._window: deque[_Scored] = deque(maxlen=2 * options.adaptive_window + 1)
        self._last_cut: int | None = None

    def push(self, shown: TickedFrame, before: VideoFrame | None, coarse: Difference) -> list[int]:
        self.content = coarse.content
        if self._last_cut is None:
            self._last_cut = shown.pts
        self._window.append(_Scored(shown, before, coarse.content))
        width = self._options.adaptive_window
        if len(self._window) < 2 * width + 1:
            return []
        middle = self._window[width]
        least = self._options.adaptive_min_difference
        if middle.content < NEAR[0] * least or not self._min.reached(self._last_cut, middle.shown.pts):
            return []
        for scored in self._window:
            scored.look_closely(self._compare)
        others = (sum(scored.content for scored in self._window) - middle.content) / (2 * width)
        stands_out = others < 1e-5 or middle.content / others >= self._options.adaptive_threshold
        if not stands_out or middle.content < least:
            return []
        self._last_cut = middle.shown.pts
        return [middle.shown.pts]

    def open_from(self) -> int | None:
        after = max(0, len(self._window) - self._options.adaptive_window)
        return self._window[after].shown.pts


class _Scored:
    """A frame with its difference from the one before, measured better on demand."""

    def __init__(self, shown: TickedFrame, before: VideoFrame | None, content: float) -> None:
        self.shown, self._before, self.content = shown, before, content
        self._close = False

    def look_closely(self, compare: Compare) -> None:
        if not self._close:
            self.content = compare([self.shown.picture], self._before)[0].content
            self._close = True


class PySceneDetectFinder:
    """That package's own detectors, fed with frames as its scene manager would: whole, then shrunk by OpenCV."""

    def __init__(self, movie: ContainerMovie, options: ScanOptions, ticks_per_frame: float) -> None:
        try:
            import cv2
            from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
            from scenedetect.common import Timecode
        except ImportError as error:
            raise TimeloomError(
                f"detector {options.detector} needs a package that is not installed: pip install 'timeloom[curate]'."
            ) from error
        if options.detector == "pyscenedetect":
            self._detector: Any = ContentDetector(options.threshold, options.min_scene_frames)
        else:
            self._detector = AdaptiveDetector(
                options.adaptive_threshold,
                options.min_scene_frames,
                options.adaptive_window,
                options.adaptive_min_difference,
            )
        height, width = comparison_size(*movie.stored, options.width)
        self._small = (width, height)
        self._shrink = lambda image: cv2.resize(image, self._small, interpolation=cv2.INTER_LINEAR)
        rate, tick_s = 1 / movie.interval_s, movie.tick_s
        self._time = lambda pts: FrameTimecode(Timecode(pts=pts, time_base=tick_s), fps=rate)
        self._first: int | None = None
        self._behind = (self._detector.event_buffer_length + 1) * ticks_per_frame
        self._now = 0
        self.content = 0.0

    def push(self, shown: TickedFrame, before: VideoFrame | None, coarse: Difference) -> list[int]:
        if self._first is None:
            self._first = shown.pts
        self._now, self.content = shown.pts, coarse.content
        image: np.ndarray = shown.picture.to_ndarray(format="bgr24")
        if (image.shape[1], image.shape[0]) != self._small:
            image = self._shrink(image)
        cuts = self._detector.process_frame(self._time(shown.pts - self._first), image)
        return [cut.pts + self._first for cut in cuts]

    def open_from(self) -> int | None:
        return int(self._now - self._behind)
