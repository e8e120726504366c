"""How sure a share is, given how many clips it was counted on; and a mean, given how many times it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev


@dataclass(frozen=True)
class Share:
    """`right` of `total`."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]; 0 of nothing."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return wilson(self.right, self.total)


def wilson(right: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, JASA 22): sensible near 0 and 1 and for small totals.

    `right` may be a mean over several runs on the same `total`.

    Raises:
        ValueError: a count below zero, or more right than there are.
    """
    if not 0 <= right <= total:
        raise ValueError(f"{right} of {total}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return (0.0 if right == 0 else middle - half), (1.0 if right == total else middle + half)


def student(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of what was measured several times (Student 1908, Biometrika 6).

    Raises:
        ValueError: fewer than two values, which say nothing about how much they vary.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, not {len(values)}")
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half
