"""Blur kernels of Real-ESRGAN's degradations (arXiv 2107.10833, Sec. 3.1 and 3.2), each a density that sums to one.

All are (size, size), size odd, float64; lengths in pixels, angles in radians.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

Kernel = NDArray[np.float64]
Shape = Literal["gaussian", "generalised", "plateau"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


def blur_kernel(shape: Shape, size: int, sigmas: tuple[float, float], angle: float, beta: float = 1.0) -> Kernel:
    """A function of q = xᵀ Σ⁻¹ x, Σ having the `sigmas` along its axes, the first of them turned by `angle`.

    gaussian: exp(−q / 2), isotropic where the sigmas are equal. generalised: exp(−q^beta / 2). plateau:
    1 / (1 + q^beta).
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    along = turn @ np.stack(_grid(size)).reshape(2, -1)
    distance = ((along / np.array(sigmas)[:, None]) ** 2).sum(axis=0).reshape(size, size)
    if shape == "plateau":
        kernel = 1 / (1 + distance**beta)
    else:
        kernel = np.exp(-0.5 * distance ** (beta if shape == "generalised" else 1.0))
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> Kernel:
    """The ideal circular low-pass filter, cut to `size`: what rings like compression and sharpening (Eq. 6).

    `cutoff` is in radians a pixel, pi the highest frequency there is.
    """
    x, y = _grid(size)
    radius = np.hypot(x, y)
    centre = size // 2
    radius[centre, centre] = 1.0
    kernel = cutoff * j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[centre, centre] = cutoff**2 / (4 * np.pi)
    return kernel / kernel.sum()


def _grid(size: int) -> tuple[Kernel, Kernel]:
    """x and y of each place, from the middle."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel's size must be odd, not {size}")
    places = np.arange(size, dtype=np.float64) - size // 2
    x, y = np.meshgrid(places, places)
    return x, y
