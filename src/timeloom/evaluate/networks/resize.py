"""The ways in which metrics make images smaller or larger; numbers depend on them (Clean-FID, arXiv 2104.11222).

Images are float (B, C, H, W), in any range unless it is said.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def tf1_bilinear(images: Tensor, height: int, width: int) -> Tensor:
    """TensorFlow 1's bilinear resize, in the graph of FID's Inception and in FVD's first code.

    Pixel i of the result is read at i · H / height, without the half pixel that everybody adds today; so the picture
    moves, and beyond the last pixel that one is repeated. Nothing is averaged when it gets smaller.
    """
    return _tf1_axis(_tf1_axis(images, width, dim=3), height, dim=2)


def _tf1_axis(images: Tensor, size: int, dim: int) -> Tensor:
    length = images.shape[dim]
    place = torch.arange(size, device=images.device, dtype=torch.float32) * (length / size)
    low = place.floor().long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    weight = (place - low).view([-1 if axis == dim else 1 for axis in range(images.ndim)]).to(images)
    before, after = images.index_select(dim, low), images.index_select(dim, high)
    return before + (after - before) * weight


def bilinear(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with half pixels, not averaging: PyTorch's usual."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def corner_bilinear(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, the corners of both on each other: Chainer's usual."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=True)


def antialiased_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Pillow's bicubic on floats, which averages when it gets smaller; 0…255 in, and clamped to it."""
    return F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)


def pillow_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Pillow's bicubic on 8-bit images: across and then down, rounded to whole numbers in 0…255 each time."""
    across = antialiased_bicubic(images, images.shape[2], width).round()
    return antialiased_bicubic(across, height, width).round()


def centre_crop(images: Tensor, side: int) -> Tensor:
    """The square in the middle, of images at least as large; an odd pixel goes to the right and the bottom."""
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]


def short_side(height: int, width: int, side: int, round_up: bool) -> tuple[int, int]:
    """Height and width in the same proportion with `side` as the shorter; the longer is rounded up, or down."""
    longer = side * max(height, width) / min(height, width)
    long_side = math.ceil(longer) if round_up else int(longer)
    return (side, long_side) if height < width else (long_side, side)
