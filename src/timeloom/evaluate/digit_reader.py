"""Reading the digit: a small classifier fitted on the spot from training scans, seen through the judge's own eyes.

Features are strengths of edges by direction and place, after Dalal & Triggs 2005 ("Histograms of oriented gradients
for human detection"). The classifier is kernel ridge regression on one-hot targets: one matrix to solve, the same every
time, and reading is a matrix product.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from timeloom.data.clip import Window
from timeloom.data.digits import BACKGROUNDS, COLOURS, FPS, SIDE, Scene, render, scans_of
from timeloom.evaluate.segmentation import Segmentation, crop, segment

CROP_SIDE = 24
_EXTENT = 2.1  # half the crop's side in units of the digit's radius
_SUPERSAMPLING = 2
_VIEWS = 3  # of each training scan
_TILT = 12.0  # degrees either way
_CELL = 4  # pixels of the crop from one place to the next; each looks over twice as many
_DIRECTIONS = 8
NUM_FEATURES = _DIRECTIONS * (CROP_SIDE // _CELL) ** 2
_GAMMA, _RIDGE = 0.3, 0.01


def describe(found: Segmentation, angle: Tensor) -> Tensor:
    """Features (B, F, NUM_FEATURES) of each frame's digit, centred, upright and of one size; `angle` as in `crop`."""
    side = CROP_SIDE * _SUPERSAMPLING
    steps = ((torch.arange(side) + 0.5) / side * 2 - 1) * _EXTENT
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    glyphs = F.avg_pool2d(crop(found, offsets, angle), _SUPERSAMPLING).flatten(0, 1)
    padded = F.pad(glyphs, (1, 1, 1, 1))
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    directions = 2 * math.pi * torch.arange(_DIRECTIONS)[:, None, None] / _DIRECTIONS
    along = across[:, None] * directions.cos() + down[:, None] * directions.sin()  # (B·F, directions, h, w)
    edges = along.clamp(min=0).square() / (across.square() + down.square() + 1e-3).sqrt()[:, None]
    places = F.avg_pool2d(edges, 2 * _CELL, stride=_CELL, padding=_CELL, count_include_pad=True)[:, :, :-1, :-1]
    return places.flatten(1).sqrt().unflatten(0, angle.shape)


class DigitReader:
    """Scores for the ten digits. Fitted on the training split's handwriting, so the test split's is new to it."""

    def __init__(self, seed: int = 0) -> None:
        from sklearn.kernel_ridge import KernelRidge

        features, digits = _training_views(seed)
        self._scale = float(features.var(axis=0).sum() ** -0.5)
        self._model = KernelRidge(alpha=_RIDGE, kernel="rbf", gamma=_GAMMA)
        self._model.fit(features * self._scale, 2.0 * (digits[:, None] == np.arange(10)) - 1.0)

    def scores(self, found: Segmentation, angle: Tensor) -> NDArray[np.float64]:
        """(B, F, 10): some 1 for the digit that is seen and −1 for the others."""
        features = describe(found, angle).flatten(0, 1).numpy() * self._scale
        return np.asarray(self._model.predict(features)).reshape(*angle.shape, 10)


@functools.lru_cache(maxsize=1)
def digit_reader(seed: int = 0) -> DigitReader:
    """The reader, fitted once a process."""
    return DigitReader(seed)


def _training_views(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (N, NUM_FEATURES) and digits (N,) of training scans in several sizes and tilts, one in three soft."""
    rng = np.random.default_rng(seed)
    scenes, starts = [], []
    for digit, own in enumerate(scans_of("train")):
        for scan in np.repeat(own, _VIEWS):
            red, green, blue = (float(value) for value in COLOURS[str(rng.choice(list(COLOURS)))])
            x, y = rng.uniform(-6, 6, size=2)
            background, size = str(rng.choice(BACKGROUNDS)), float(rng.uniform(24, 44))
            scenes.append(
                Scene(
                    digit, "", background, "spin", int(scan), (red, green, blue), rng.uniform(-1, 1), (x, y), size, 0.0
                )
            )
            starts.append(float(rng.uniform(-_TILT, _TILT)) / 360 % 1)  # a moment of a spin is a tilt
    clips = torch.from_numpy(render(scenes, Window(1, FPS, SIDE, SIDE), starts))
    clips[1::_VIEWS] = _soften(clips[1::_VIEWS])
    found = segment(clips)
    features = describe(found, torch.zeros(found.visible.shape))[:, 0]
    return features.numpy(), np.array([scene.digit for scene in scenes])


def _soften(clips: Tensor) -> Tensor:
    """What an autoencoder does to edges: half the size and back."""
    images = clips[:, 0].permute(0, 3, 1, 2).float()
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    return soft.round().to(torch.uint8).permute(0, 2, 3, 1)[:, None]
