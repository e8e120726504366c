"""What moves in a clip: the digit's path, size and turning, fitted over all frames so that a bad one decides nothing.

Every movement is measured as a share of what the data set does; the strongest names the motion, and none is "still".

Axes: B clips, F frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timeloom.data.digits import DIRECTIONS, DURATION_S, FPS
from timeloom.evaluate.segmentation import Segmentation, crop

Array = NDArray[np.float64]

MIN_SHARE = 0.4
"""Of the data set's usual movement; less is "still"."""
TRAVEL = 26.0
"""Pixels of a usual path and of a usual bounce (see `digits.Scene.travel`)."""
GROWTH = math.log((34 + 0.4 * 26) / (34 - 0.4 * 26))
"""Usual logarithm of the last size over the first."""
_TURNS = np.round(np.arange(-1.6, 1.6001, 0.1), 1)  # turns in a clip that are tried
_RINGS, _ANGLES, _HARMONICS = 6, 48, 10
_SPIN_MARGIN = 1.1  # by how much turning must explain the frames better than standing upright


def phases(num_frames: int, fps: float) -> Array:
    """(F,): where in its path each frame is, as in `digits.Scene.pose`."""
    return np.arange(num_frames) / fps / (DURATION_S - 1 / FPS)


def name_motions(found: Segmentation, fps: float) -> tuple[list[str], Array]:
    """The motion in each clip, and how many clockwise turns the digit makes over the clip's path (0 unless it spins).

    Clips need two visible frames; what is said of others means nothing.
    """
    phase = phases(found.mask.shape[1], fps)
    visible = found.visible.numpy()
    x, y = (found.centre[..., axis].double().numpy() for axis in (0, 1))
    across, down = slope(phase, x, visible), slope(phase, y, visible)
    growth = slope(phase, found.area.clamp(min=1e-6).double().log().numpy() / 2, visible)
    bounce = bounce_height(phase, y, visible)
    turns = count_turns(found, phase)

    travel = np.hypot(across, down) / TRAVEL
    shares = np.stack([travel, bounce / TRAVEL, np.abs(growth) / GROWTH, np.abs(turns)], axis=1)
    motions = []
    for clip, strongest in enumerate(shares.argmax(axis=1)):
        if shares[clip, strongest] < MIN_SHARE:
            motions.append("still")
        elif strongest == 0:
            motions.append(_direction(across[clip], down[clip]))
        else:
            motions.append(("bounce", "grow" if growth[clip] > 0 else "shrink", "spin")[strongest - 1])
    return motions, np.where([motion == "spin" for motion in motions], turns, 0.0)


def slope(phase: Array, values: Array, visible: NDArray[np.bool_]) -> Array:
    """Change of (B, F) values from phase 0 to 1: the median over all pairs of visible frames (Theil 1950, Sen 1968).

    Right as long as fewer than 29 % of the frames are wrong.
    """
    first, second = np.triu_indices(len(phase), k=1)
    rates = (values[:, second] - values[:, first]) / (phase[second] - phase[first])
    rates[~(visible[:, first] & visible[:, second])] = np.nan
    rates[np.isnan(rates).all(axis=1)] = 0.0
    return np.asarray(np.nanmedian(rates, axis=1))


def bounce_height(phase: Array, y: Array, visible: NDArray[np.bool_]) -> Array:
    """Height of the arcs |cos 2πp| in the paths y (B, F), beside a straight line; outlying frames count little."""
    shape = np.stack([np.ones_like(phase), phase - 0.5, -np.abs(np.cos(2 * np.pi * phase))], axis=1)  # (F, 3)
    weight = visible.astype(np.float64)
    for _ in range(8):  # reweighted least squares with Cauchy's weights, scale 2 pixels
        normal = np.einsum("bf,fi,fj->bij", weight, shape, shape) + 1e-6 * np.eye(3)
        fit = np.linalg.solve(normal, np.einsum("bf,fi,bf->bi", weight, shape, y)[..., None])[..., 0]
        weight = visible / (1 + ((y - fit @ shape.T) / 2) ** 2)
    return np.asarray(fit[:, 2])


def count_turns(found: Segmentation, phase: Array) -> Array:
    """Clockwise turns (B,) per path at which the frames, turned back, agree best; 0 where 0 explains them as well.

    The mask in polar coordinates has a Fourier series over the angle; turning by α multiplies its k-th term by
    exp(−ikα). The power of the sum of frames, turned back, is the sum of the correlations of all pairs.
    """
    angles = 2 * math.pi * torch.arange(_ANGLES) / _ANGLES
    rings = torch.linspace(0.4, 2.0, _RINGS)
    offsets = torch.stack([rings[:, None] * angles.cos(), rings[:, None] * angles.sin()], dim=-1)
    polar = crop(found, offsets, torch.zeros(found.visible.shape)) * rings.sqrt()[:, None]  # (B, F, rings, angles)
    polar = polar * found.visible[..., None, None]
    series = torch.fft.rfft(polar, dim=-1)[..., 1 : _HARMONICS + 1].flatten(2)  # (B, F, rings · k)
    k = torch.arange(1, _HARMONICS + 1).repeat(_RINGS)
    power = []
    for turns in _TURNS:
        back = torch.polar(torch.ones(1), 2 * math.pi * float(turns) * torch.from_numpy(phase).float()[:, None] * k)
        power.append((series * back).sum(dim=1).abs().square().sum(dim=1))
    powers = torch.stack(power, dim=1).numpy()
    best = _TURNS[powers.argmax(axis=1)]
    upright = powers[:, int(np.flatnonzero(_TURNS == 0)[0])]
    return np.where(powers.max(axis=1) > _SPIN_MARGIN * upright, best, 0.0)


def _direction(across: float, down: float) -> str:
    heading = {name: math.atan2(dy, dx) for name, (dx, dy) in DIRECTIONS.items()}
    return max(heading, key=lambda name: math.cos(heading[name] - math.atan2(down, across)))


def turned(turns: Array, phase: Array) -> Tensor:
    """(B, F): the clockwise angle in radians at each frame."""
    return torch.from_numpy(2 * math.pi * turns[:, None] * phase).float()
