"""The kernel distance (KID; Bińkowski et al. 2018, arXiv 1801.01401): unbiased, so that it suits small sets.

    k(x, y) = (x·y / D + 1)³,   MMD² = mean k(x, x') + mean k(y, y') − 2 mean k(x, y),  x ≠ x', y ≠ y'

Usual code takes the mean over random subsets of 1,000, because all pairs at once need too much memory. Here all pairs
are summed, a block at a time: the expectation is the same, the noise is less. Frames of one video are no pair: they
resemble each other, which would look like a difference between the sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import CHUNK, Array, FeatureSet, Places
from timeloom.evaluate.metrics.metric import Metric, Result, require_same_dimensions
from timeloom.evaluate.metrics.uncertainty import LEAST

BLOCKS = 20
"""Of the first set at least this many; one is left out at a time for the error."""


@dataclass(frozen=True)
class KernelDistance:
    """An unbiased MMD²; below 0 by chance where the sets are alike."""

    value: float
    standard_error: float | None
    """From leaving out one block of the first set at a time; None where it has fewer than 32 videos."""


def kernel_distance(
    features_a: FeatureSet | ArrayLike, features_b: FeatureSet | ArrayLike, seed: int = 0
) -> KernelDistance:
    """The unbiased MMD² between two sets, and its standard error, the second set held fixed.

    Args:
        features_a: (N, D), or (N, F, D) whose frames are compared and whose videos are drawn.
        features_b: (M, D) or (M, F, D).
        seed: of the blocks; the value does not depend on it, the error hardly.

    Raises:
        TimeloomError: fewer than 2 videos, several D, or values that are not finite.
    """
    first, second = FeatureSet.of(features_a, "features_a"), FeatureSet.of(features_b, "features_b")
    for features in (first, second):
        features.check(2, "a kernel distance")
    require_same_dimensions(first, second.dimensions)
    blocks, others = _blocks(first, seed, BLOCKS), _blocks(second, seed, 1)
    sizes = np.array([len(block) for block in blocks], dtype=np.float64)
    within = _within(first, blocks)
    across = _across(first, blocks, second, others)
    constant = float(_within(second, others).sum()) / (len(second) * (len(second) - 1))

    def distance(count: float, inside: float, between: float) -> float:
        return inside / (count * (count - 1)) + constant - 2 * between / (count * len(second))

    value = distance(len(first), float(within.sum()), float(across.sum()))
    if len(first) < LEAST:
        return KernelDistance(value, None)
    left_out = 2 * within.sum(axis=0) - within.diagonal()
    without = np.array(
        [
            distance(len(first) - size, within.sum() - inside, across.sum() - between)
            for size, inside, between in zip(sizes, left_out, across, strict=True)
        ]
    )
    error = ((len(blocks) - 1) / len(blocks) * np.square(without - without.mean()).sum()) ** 0.5
    return KernelDistance(value, float(error))


def _blocks(features: FeatureSet, seed: int, least: int) -> list[Places]:
    """Equal parts of a shuffled set: at least so many, where there are as many videos, and none above a chunk."""
    count = min(len(features), max(least, -(-len(features) // CHUNK)))
    return np.array_split(features.order(seed), count)


def _within(features: FeatureSet, blocks: list[Places]) -> Array:
    """(blocks, blocks): sums of the kernel over all pairs of different videos."""
    sums = np.zeros((len(blocks), len(blocks)))
    for i, block in enumerate(blocks):
        rows = _read(features, block)
        own = _kernel(rows, rows)
        sums[i, i] = own.sum() - np.trace(own)
        for j in range(i):
            sums[i, j] = sums[j, i] = _kernel(rows, _read(features, blocks[j])).sum()
    return sums


def _across(first: FeatureSet, blocks: list[Places], second: FeatureSet, others: list[Places]) -> Array:
    """(blocks,): sums of the kernel of each block with the whole other set."""
    sums = np.zeros(len(blocks))
    for other in others:
        rows = _read(second, other)
        sums += [_kernel(_read(first, block), rows).sum() for block in blocks]
    return sums


def _read(features: FeatureSet, places: Places) -> Array:
    """(n, F, D); F is 1 where there are no frames."""
    rows = features.take(places)
    return rows if rows.ndim == 3 else rows[:, None]


def _kernel(first: Array, second: Array) -> Array:
    """(n, m): the kernel between two videos, a mean over all pairs of their frames."""
    products = first.reshape(-1, first.shape[-1]) @ second.reshape(-1, second.shape[-1]).T
    kernel = (products / first.shape[-1] + 1) ** 3
    return kernel.reshape(*first.shape[:2], *second.shape[:2]).mean(axis=(1, 3))


@dataclass(frozen=True)
class KernelMetric(Metric):
    """A kernel distance to real videos; the interval is normal, from the standard error."""

    confidence: float = 0.95
    """Of the interval."""
    seed: int = 0
    """Of the blocks that the error is taken from."""

    reference: ClassVar[Literal["videos", "texts"] | None] = "videos"
    better: ClassVar[Literal["lower", "higher"]] = "lower"

    def measure(self, features: FeatureSet, reference: FeatureSet | None = None) -> Result:
        """As `Metric.measure`."""
        if not isinstance(reference, FeatureSet):
            raise TimeloomError(f"{self.name} needs the features of real videos to compare with, not their moments.")
        distance = kernel_distance(features, reference, self.seed)
        error, bounds = distance.standard_error, None
        if error is not None:
            half = NormalDist().inv_cdf((1 + self.confidence) / 2) * error
            bounds = distance.value - half, distance.value + half
        return self.result(features, distance.value, bounds, len(reference), standard_error=error)
