"""Buckets by aspect ratio: clips are trained on near their own shape instead of as the middle of a square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timeloom.data.movie import Size

WIDEST = 2.0
"""Buckets made from a pixel budget are at most so many times as wide as high, or as high as wide."""


def budget_sizes(pixels: int) -> list[Size]:
    """Sizes of about `pixels` pixels, from twice as wide to twice as high, sides in steps of an eighth of the square's.

    budget_sizes(256 * 256): (192, 352), (224, 288), (256, 256), (288, 224), (352, 192). Sides divide by 8.
    """
    side = pixels**0.5
    step = max(8, round(side / 64) * 8)
    sizes = set()
    for units in range(1, round(side / step) + 1):
        height = units * step
        width = max(1, round(pixels / height / step)) * step
        if max(height, width) <= WIDEST * min(height, width):
            sizes |= {(height, width), (width, height)}
    return sorted(sizes)


def nearest_sizes(
    heights: NDArray[np.int32], widths: NDArray[np.int32], sizes: Sequence[Size], unknown: Size
) -> NDArray[np.uint16]:
    """For each clip the place of the size of nearest aspect ratio, the first of equals.

    A clip of unknown size (0) is taken for one of the shape of `unknown`.
    """
    if len(sizes) == 1:
        return np.zeros(len(heights), dtype=np.uint16)
    shapes = np.log([height / width for height, width in sizes])
    order = np.argsort(shapes, kind="stable")
    own = np.full(len(heights), np.log(unknown[0] / unknown[1]), dtype=np.float32)
    known = (heights > 0) & (widths > 0)
    own[known] = np.log(heights[known] / widths[known])
    borders = (shapes[order][1:] + shapes[order][:-1]) / 2
    return order.astype(np.uint16)[np.searchsorted(borders, own, side="left")]
