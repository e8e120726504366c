"""How near enlarged frames are to the originals (PSNR, SSIM), and how much they flicker where nothing moves.

As the field of super-resolution measures: on Y alone (BT.601, 16 … 235), a border as wide as the scale left out.

Axes: F frames, H, W; h, w of the small frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.ndimage import correlate1d, uniform_filter

from timeloom.data.clip import Frames
from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import CHUNK, Array, FeatureSet
from timeloom.evaluate.metrics.metric import Metric, Result
from timeloom.evaluate.metrics.uncertainty import LEAST, interval

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""Y = 16 + LUMA · RGB, of RGB in 0 … 255 (ITU-R BT.601; MATLAB's rgb2ycbcr)."""
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
STILL_WINDOW, STILL_LEVELS = 5, 4.0


def luma(frames: Frames) -> Array:
    """Y (F, H, W) in 16 … 235 of uint8 (F, H, W, 3)."""
    return 16 + frames @ LUMA


def psnr(made: Frames, wanted: Frames, border: int) -> Array:
    """Peak signal-to-noise ratio of each frame in dB, (F,), against a peak of 255; inf where they are equal.

    Raises: TimeloomError where shapes differ or the border leaves nothing.
    """
    with np.errstate(divide="ignore"):
        errors = [np.square(a - b).mean() for a, b in _cropped(made, wanted, border, least=1)]
        return 10 * np.log10(255**2 / np.array(errors))


def ssim(made: Frames, wanted: Frames, border: int) -> Array:
    """Structural similarity of each frame, (F,) (Wang et al. 2004, Sec. III.C): Gaussian windows that lie within.

    Raises: as `psnr`.
    """
    return np.array([_ssim(a, b) for a, b in _cropped(made, wanted, border, least=WINDOW)])


def _cropped(made: Frames, wanted: Frames, border: int, least: int) -> Iterator[tuple[Array, Array]]:
    """Y of each frame of both, without the border; at least `least` pixels a side."""
    if made.shape != wanted.shape:
        raise TimeloomError(f"frames of shape {made.shape} cannot be compared with frames of shape {wanted.shape}.")
    _, height, width, _ = made.shape
    if min(height, width) - 2 * border < least:
        raise TimeloomError(f"{width}x{height} frames without a border of {border} pixels are too small to compare.")
    inside = np.s_[border : height - border, border : width - border]
    for a, b in zip(made, wanted, strict=True):
        yield luma(a[inside]), luma(b[inside])


def _ssim(a: Array, b: Array) -> float:
    places = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(places**2) / (2 * SIGMA**2))
    weights /= weights.sum()

    def local(values: Array) -> Array:
        both = correlate1d(correlate1d(values, weights, axis=0), weights, axis=1)
        return both[WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]

    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


@dataclass(frozen=True)
class Flicker:
    """Change from frame to frame where nothing moves, in levels of Y."""

    value: float
    """Of the enlarged frames; NaN where all moves."""
    own: float
    """Of the small frames in the same places: what was there before."""
    still: float
    """Share of the places, over all frames but the first, that do not move."""

    @property
    def ratio(self) -> float:
        """Below 1 the enlarging calms the frames, above 1 it makes them flicker."""
        return self.value / self.own if self.own else float("inf" if self.value else "nan")


def flicker(large: Frames, small: Frames) -> Flicker:
    """How much `large` (F, H, W, 3) changes where the frames that it comes from, `small` (F, h, w, 3), do not.

    A place is still from one frame to the next where the mean of its 5x5 small pixels changes by less than 4 levels:
    noise is averaged away, motion is not. At least 2 frames.

    Raises: TimeloomError where the numbers of frames differ or the sizes are no whole multiples.
    """
    scale = large.shape[1] // small.shape[1]
    if large.shape != (len(small), small.shape[1] * scale, small.shape[2] * scale, 3) or not scale:
        raise TimeloomError(f"frames of shape {large.shape} do not come from frames of shape {small.shape}.")
    if len(small) < 2:
        raise TimeloomError("flicker is a change between frames, and there is only one.")
    before, after, own, count, places = 0.0, luma(small[:1])[0], 0.0, 0, 0
    total = 0.0
    for index in range(1, len(small)):
        before, after = after, luma(small[index : index + 1])[0]
        still = np.abs(uniform_filter(after, STILL_WINDOW) - uniform_filter(before, STILL_WINDOW)) < STILL_LEVELS
        own += np.abs(after - before)[still].sum()
        change = np.abs(luma(large[index : index + 1])[0] - luma(large[index - 1 : index])[0])
        total += change.reshape(*still.shape[:1], scale, still.shape[1], scale).mean(axis=(1, 3))[still].sum()
        count, places = count + int(still.sum()), places + still.size
    if not count:
        return Flicker(float("nan"), float("nan"), 0.0)
    return Flicker(float(total / count), float(own / count), count / places)


@dataclass(frozen=True)
class FidelityMetric(Metric):
    """The mean over videos of one number each (N, 1), which the functions above give; the interval resamples videos."""

    direction: Literal["lower", "higher"] = "higher"
    replicates: int = 1000
    """Resamples for the interval; 0 for none."""
    confidence: float = 0.95
    """Of the interval."""
    seed: int = 0
    """Of the resamples."""

    reference: ClassVar[Literal["videos", "texts"] | None] = None

    @property
    def better(self) -> Literal["lower", "higher"]:  # type: ignore[override]
        return self.direction

    def measure(self, features: FeatureSet, reference: None = None) -> Result:
        """As `Metric.measure`; no reference, for each number has had its own original."""
        features.check(1, self.name)
        values = np.concatenate([rows for _, rows in features.chunks()])
        if values.shape[1:] != (1,):
            raise TimeloomError(f"{features.label}: {self.name} needs one number a video, not {values.shape[1:]}.")
        resampled = np.zeros(0)
        if len(features) >= LEAST and self.replicates:
            total, count = np.zeros(self.replicates), np.zeros(self.replicates)
            for start in range(0, len(features), CHUNK):
                places = np.arange(start, min(start + CHUNK, len(features)))
                weights = features.poisson(places, self.replicates, self.seed)
                total, count = total + weights @ values[places, 0], count + weights.sum(axis=1)
            resampled = total / count
        value = float(values.mean())
        return self.result(features, value, interval(value, resampled, self.confidence))
