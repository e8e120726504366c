"""How sure a value is: bootstrap intervals over videos, and where a biased distance leads as N grows.

Frames of a video resemble each other, so what is resampled is always whole videos. The reference stays as it is: it
belongs to the protocol, and the question is how far the value would move, had the model made other videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from timeloom.evaluate.metrics.features import Array, FeatureSet
from timeloom.evaluate.metrics.moments import Moments

LEAST = 32
"""Fewer videos than this say nothing about how much videos vary."""
BUDGET_BYTES = 256 << 20
"""Moments of resamples that are in memory at once; the features are read again for those that are not."""


def interval(value: float, replicates: Array, confidence: float) -> tuple[float, float] | None:
    """The spread of the replicates about their own mean, laid around `value`; None without replicates.

    Plain percentiles of a Fréchet distance would lie beside its value: a resample holds fewer different videos, so its
    distance has the small-sample bias twice. The mean of the replicates takes that second bias away; the first is in
    `value` as it is, and `extrapolate` is there for it.
    """
    if len(replicates) == 0:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates - replicates.mean(), [tail, 1 - tail])
    return value + float(low), value + float(high)


def resampled_moments(features: FeatureSet, count: int, seed: int) -> Iterator[Moments]:
    """Moments of `count` resamples of the videos: the videos weighted, and never copied.

    Weights are Poisson of mean 1 (Chamandy et al. 2012, "Estimating uncertainty for massive data streams"), for N
    beyond a dozen the same as drawing N with replacement, and each video's depend on the seed and its name alone.
    """
    together = max(1, BUDGET_BYTES // (8 * features.dimensions**2))
    for first in range(0, count, together):
        group = [Moments.empty(features.dimensions) for _ in range(min(together, count - first))]
        for places, rows in features.chunks():
            weights = features.poisson(places, count, seed)[first : first + len(group)]
            for moments, own in zip(group, weights, strict=True):
                drawn = own > 0
                moments.add(rows[drawn], own[drawn])
        yield from group


@dataclass(frozen=True)
class Extrapolation:
    """The straight line through mean distances against 1/N, and where it meets 1/N = 0."""

    value: float
    """At infinite N; may be below 0, by noise or where the line is none."""
    standard_error: float
    """Of that value, from how far the points lie off the line; not how much videos vary, which the interval says."""
    slope: float
    """Of the distance against the number of parts, so the bias of the distance at full N."""
    distances: tuple[float, ...]
    """Mean distance where the videos are cut into 1, 2, 3, ... parts: see whether they make a line."""


def fit_line(distances: Sequence[float]) -> Extrapolation:
    """Least squares through distances of sets cut into 1, 2, 3, ... parts; at least 3, for the error.

    At k parts each has N / k videos, so k stands for 1/N, and k = 0 for infinitely many
    (Chong and Forsyth 2020, "Effectively unbiased FID and Inception Score", arXiv 1911.07023).
    """
    parts = np.arange(1, len(distances) + 1, dtype=np.float64)
    values = np.asarray(distances, dtype=np.float64)
    away = parts - parts.mean()
    spread = float(away @ away)
    slope = float(away @ values) / spread
    value = float(values.mean() - slope * parts.mean())
    residuals = values - value - slope * parts
    variance = float(residuals @ residuals) / (len(parts) - 2)
    error = (variance * (1 / len(parts) + parts.mean() ** 2 / spread)) ** 0.5
    return Extrapolation(value, error, slope, tuple(float(distance) for distance in values))
