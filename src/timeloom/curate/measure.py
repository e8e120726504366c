"""What a few pictures of a scene tell: sharpness, bars, and edges that stay while scenes change."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from timeloom.curate.difference import Plane
from timeloom.data.clip import Frames

DARK = 24
"""Brightness, 0 to 255, up to which a bar is black: limited-range black, and some ringing of the codec."""
EDGE = 32
"""Steps of brightness, 0 to 255, over two pixels, that are an edge."""
MARGIN = 3
"""Pixels beside a bar or the picture's end where edges are not the picture's own."""
CHANGED = 12.0
"""Mean difference of brightness, 0 to 255, from which a scene counts as another one."""
ENOUGH_SCENES = 4
STAYS = 0.8
"""Share of the scenes that must have an edge for it to stay; a few lose it over a background as bright as itself."""


class Candidates:
    """Some frames of a scene that goes on, evenly spread over it, so that one near its middle is at hand when it ends.

    The frames are the decoder's own, held and not copied. Whenever `room` of them are held, every second one goes.
    """

    def __init__(self, room: int) -> None:
        self._room, self._every = room, 1
        self._held: list[tuple[int, int, VideoFrame]] = []  # number within the scene, pts, frame

    def add(self, number: int, pts: int, frame: VideoFrame) -> None:
        """Offer the scene's frame `number`."""
        if number % self._every == 0:
            self._held.append((number, pts, frame))
        if len(self._held) >= self._room:
            self._every *= 2
            self._held = [held for held in self._held if held[0] % self._every == 0]

    def end(self, num_frames: int, latest: tuple[int, int, VideoFrame]) -> list[tuple[int, int, VideoFrame]]:
        """What is held of the scene, which had `num_frames`; those held of later frames begin the next scene.

        `latest` is (number, pts, frame) of the last frame offered, for a next scene of which nothing is held.
        """
        ended = [held for held in self._held if held[0] < num_frames]
        later = [held for held in self._held if held[0] >= num_frames]
        if not later and latest[0] >= num_frames:
            later = [latest]
        self._held = [(number - num_frames, pts, frame) for number, pts, frame in later]
        self._every = 1
        return ended


class Greys:
    """Frames as small grey pictures, antialiased."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def draw(self, frame: VideoFrame) -> Plane:
        """(H, W), as stored."""
        height, width = self._size
        small = self._reformatter.reformat(frame, width, height, "gray", interpolation=Interpolation.AREA, threads=1)
        plane = small.planes[0]
        return np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, :width].copy()


def sharpness(image: Frames) -> float:
    """Mean absolute Laplacian of the green channel of a picture (H, W, 3), 0 to 1020."""
    green = image[..., 1].astype(np.int16)
    if min(green.shape) < 3:
        return 0.0
    around = green[:-2, 1:-1] + green[2:, 1:-1] + green[1:-1, :-2] + green[1:-1, 2:]
    return float(np.abs(around - 4 * green[1:-1, 1:-1]).mean())


def bars(greys: Sequence[Plane]) -> tuple[int, int, int, int]:
    """Rows at the top and bottom, columns at the left and right, that are black in all pictures; 0 if all is black."""
    brightest = np.maximum.reduce(greys)
    lit = brightest > DARK
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    height, width = brightest.shape
    return int(rows[0]), int(height - 1 - rows[-1]), int(columns[0]), int(width - 1 - columns[-1])


def bar_share(bars: tuple[int, int, int, int], size: tuple[int, int]) -> float:
    """Share of the picture that its bars take."""
    top, bottom, left, right = bars
    height, width = size
    return 1 - (height - top - bottom) * (width - left - right) / (height * width)


class OverlayCounter:
    """Counts, over the scenes of a video, where edges are, and so finds those that stay."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._counts = np.zeros(size, np.int32)
        self._edges, self._scenes = 0, 0
        self._last: Plane | None = None

    def add(self, grey: Plane, bars: tuple[int, int, int, int]) -> None:
        """A scene's picture. One that looks like that of the scene before says nothing new."""
        if self._last is not None and np.abs(grey.astype(np.int16) - self._last).mean() < CHANGED:
            return
        self._last = grey
        edges = _edges(grey, bars)
        self._counts += edges
        self._edges += int(edges.sum())
        self._scenes += 1

    def score(self) -> float:
        """Edges that stay, over all edges of a picture on average; NaN for too few different scenes."""
        if self._scenes < ENOUGH_SCENES:
            return float("nan")
        stay = self._counts >= STAYS * self._scenes
        return min(1.0, float(stay.sum()) * self._scenes / max(1, self._edges))


def _edges(grey: Plane, bars: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    signed = grey.astype(np.int16)
    edges = np.zeros(grey.shape, bool)
    edges[1:-1] |= np.abs(signed[2:] - signed[:-2]) >= EDGE
    edges[:, 1:-1] |= np.abs(signed[:, 2:] - signed[:, :-2]) >= EDGE
    top, bottom, left, right = (bar + MARGIN for bar in bars)
    inside = np.zeros(grey.shape, bool)
    inside[top : grey.shape[0] - bottom, left : grey.shape[1] - right] = True
    return edges & inside


def jpeg(image: Frames, quality: int) -> bytes:
    """A picture (H, W, 3) as JPEG."""
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(target, "JPEG", quality=quality)
    return target.getvalue()
