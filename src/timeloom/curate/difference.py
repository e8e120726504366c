"""How much a frame differs from the one before, in HSV: the number by which PySceneDetect cuts.

H, S and V are OpenCV's for 8 bits (H from 0 to 179), to the bit. NumPy is quick where numbers are small, so the choice
between the three formulas of the hue is made in 8 bits, and only its division is done in floating point, where every
number that occurs is a whole one below 2**24 and so exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from timeloom.data.movie import Size

Plane = NDArray[np.uint8]
ONE = 1 << 12  # OpenCV's fixed point
TURN = 30  # hues of red reach from -30


class Difference(NamedTuple):
    """What a comparison tells of a frame, 0 to 255."""

    content: float
    """Mean of the mean absolute differences of H, S and V: PySceneDetect's `content_val` with its default weights."""
    value: float
    """Mean absolute difference of V."""
    brightness: float
    """Mean V of the frame itself."""


class HsvConverter:
    """Turns planes of up to `num_pixels` into H, S, V; keeps its working memory, which costs more than arithmetic."""

    def __init__(self, num_pixels: int) -> None:
        self._bytes = np.empty((5, num_pixels), np.uint8)
        self._floats = np.empty((3, num_pixels), np.float32)

    def convert(self, red: Plane, green: Plane, blue: Plane, out: Sequence[Plane]) -> None:
        """`out` becomes H, S, V of the planes, each (N,) with at most `num_pixels`."""
        hue, saturation, value = out
        spread, is_red, is_green, chosen, scratch = self._bytes[:, : len(red)]
        scale, number, spread_f = self._floats[:, : len(red)]
        np.maximum(red, green, out=value)
        np.maximum(value, blue, out=value)
        np.minimum(red, green, out=spread)
        np.minimum(spread, blue, out=spread)
        np.subtract(value, spread, out=spread)

        np.maximum(value, 1, out=chosen)
        np.divide(255 * ONE, chosen, out=scale, dtype=np.float32)
        np.rint(scale, out=scale)
        np.copyto(spread_f, spread)
        np.multiply(scale, spread_f, out=number)
        _rounded(number, saturation)

        # Which is on top? Red: green - blue. Green: blue - red + 2 spread. Blue: red - green + 4 spread.
        np.equal(value, red, out=is_red.view(np.bool_))
        np.equal(value, green, out=is_green.view(np.bool_))
        np.negative(is_red, out=is_red)  # 0 or 255: masks
        np.negative(is_green, out=is_green)
        _choose(is_green, blue, red, chosen, scratch)
        _choose(is_red, green, chosen, chosen, scratch)
        np.copyto(number, chosen)
        _choose(is_green, red, green, chosen, scratch)
        _choose(is_red, blue, chosen, chosen, scratch)
        np.copyto(scale, chosen)
        np.subtract(number, scale, out=number)
        np.bitwise_and(is_green, 2 ^ 4, out=scratch)
        np.bitwise_xor(scratch, 4, out=scratch)
        np.invert(is_red, out=is_red)
        np.bitwise_and(scratch, is_red, out=scratch)
        np.copyto(scale, scratch)
        np.multiply(scale, spread_f, out=scale)
        np.add(number, scale, out=number)

        np.maximum(spread, 1, out=spread)
        np.copyto(spread_f, spread)
        np.divide(180 * ONE // 6, spread_f, out=scale)
        np.rint(scale, out=scale)
        np.multiply(number, scale, out=number)
        _rounded(number, hue, TURN)
        np.less(hue, TURN, out=scratch.view(np.bool_))  # a negative angle: a full turn more
        np.negative(scratch, out=scratch)
        np.bitwise_and(scratch, 180, out=scratch)
        np.subtract(hue, TURN, out=hue)  # modulo 256, which the next line makes good
        np.add(hue, scratch, out=hue)


def _choose(mask: Plane, one: Plane, two: Plane, out: Plane, scratch: Plane) -> None:
    """out = one where mask else two; `out` may be `two`."""
    np.bitwise_xor(one, two, out=scratch)
    np.bitwise_and(scratch, mask, out=scratch)
    np.bitwise_xor(scratch, two, out=out)


def _rounded(number: NDArray[np.float32], out: Plane, plus: int = 0) -> None:
    """out = number / ONE, rounded, + `plus`, which must make it positive."""
    number += ONE // 2 + plus * ONE
    number *= 1 / ONE
    np.copyto(out, number, casting="unsafe")


class Comparer:
    """Compares frames that are made small; several at once, since most of the time would go into calls.

    Args:
        shrink: makes them so; `Quick` or `Faithful`.
        at_once: frames of a block.
    """

    def __init__(self, shrink: Quick | Faithful, at_once: int) -> None:
        self._shrink = shrink
        num_pixels = shrink.size[0] * shrink.size[1]
        self._hsv = HsvConverter(at_once * num_pixels)
        self._packed = np.empty((at_once, num_pixels, 3), np.uint8)
        self._rgb = np.empty((3, at_once, num_pixels), np.uint8)
        self._planes = np.zeros((3, at_once + 1, num_pixels), np.uint8)  # H, S, V; first those of the frame before
        self._scratch = np.empty((2, at_once, num_pixels), np.uint8)
        self._last: VideoFrame | None = None

    def compare(self, frames: Sequence[VideoFrame], before: VideoFrame | None) -> list[Difference]:
        """How much each of up to `at_once` frames differs from the one before it; 0 for the first of a video."""
        if before is None:
            before = frames[0]
        if before is self._last:
            self._planes[:, 0] = self._planes[:, -1]
        else:
            self._convert([before])
            self._planes[:, 0] = self._planes[:, 1]
        self._convert(frames)
        count, num_pixels = len(frames), self._planes.shape[2]
        distances = np.empty((3, count))
        higher, lower = self._scratch[:, :count]
        for plane, out in zip(self._planes, distances, strict=True):
            now, then = plane[1 : count + 1], plane[:count]
            np.maximum(now, then, out=higher)
            np.minimum(now, then, out=lower)
            np.subtract(higher, lower, out=higher)
            out[:] = np.add.reduce(higher, axis=1, dtype=np.uint32)
        brightness = np.add.reduce(self._planes[2, 1 : count + 1], axis=1, dtype=np.uint32) / num_pixels
        self._planes[:, -1] = self._planes[:, count]
        self._last = frames[-1]
        rows = np.stack([distances.mean(axis=0) / num_pixels, distances[2] / num_pixels, brightness], axis=1)
        return [Difference(*row) for row in rows.tolist()]

    def _convert(self, frames: Sequence[VideoFrame]) -> None:
        """H, S, V of the frames, behind the place of the one before."""
        for frame, packed in zip(frames, self._packed, strict=False):
            self._shrink(frame, packed)
        count = len(frames)
        np.copyto(self._rgb[:, :count], self._packed[:count].transpose(2, 0, 1))
        red, green, blue = (plane[:count].reshape(-1) for plane in self._rgb)
        self._hsv.convert(red, green, blue, [plane[1 : count + 1].reshape(-1) for plane in self._planes])


class Quick:
    """Frames made small by swscale from two pixels each way, while they are converted: cheap, and not antialiased, so
    that noise and motion count as they do for PySceneDetect, which does so with OpenCV."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, out: Plane) -> None:
        height, width = self.size
        small = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.FAST_BILINEAR, threads=1
        )
        np.copyto(out.reshape(height, width, 3), _pixels(small))


class Faithful:
    """Frames converted whole and then made small as OpenCV's INTER_LINEAR does it, to its rounding. Slow."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, out: Plane) -> None:
        whole = self._reformatter.reformat(frame, format="rgb24", threads=1)
        image = _pixels(whole)
        for axis in (0, 1):
            image = _between_two(image, self.size[axis], axis)
        np.copyto(out, np.rint(image, dtype=np.float32).reshape(-1, 3), casting="unsafe")


def _pixels(rgb: VideoFrame) -> Plane:
    """(H, W, 3): the frame's own memory."""
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(rgb.height, plane.line_size)
    return rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)


def _between_two(image: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    """An image resampled along an axis, each pixel from the two nearest to its centre."""
    places = np.clip((np.arange(size) + 0.5) * image.shape[axis] / size - 0.5, 0, image.shape[axis] - 1)
    first = places.astype(np.intp)
    share = (places - first).astype(np.float32)
    one = image.take(first, axis)
    if not share.any():
        return one
    two = image.take(np.minimum(first + 1, image.shape[axis] - 1), axis)
    return one + (two.astype(np.float32) - one) * share.reshape(-1, *[1] * (2 - axis))


def comparison_size(height: int, width: int, longer_side: int) -> Size:
    """(height, width) with the longer side at most `longer_side`, as PySceneDetect rounds it."""
    scale = min(1.0, longer_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
