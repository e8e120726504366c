"""Mean and covariance of features that come a few at a time, from one process or many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import Array


@dataclass
class Moments:
    """Running moments in float64: memory is D², however many rows there were.

    Two of them merge into what all rows together give (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise
    algorithm for computing sample variances"), so parts may be made in any order and on any process.
    """

    count: float
    """Rows, or the sum of their weights."""
    mean: Array
    """(D,)."""
    scatter: Array
    """(D, D): sum over the rows of the outer product of what they differ from the mean."""

    @classmethod
    def empty(cls, dimensions: int) -> Moments:
        """Of no rows."""
        return cls(0.0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, features: ArrayLike) -> Moments:
        """Of an array (N, D) or (N, F, D)."""
        array = np.asarray(features)
        moments = cls.empty(array.shape[-1])
        moments.add(array)
        return moments

    @classmethod
    def merged(cls, parts: Iterable[Moments]) -> Moments:
        """Of all rows of all parts. Raises TimeloomError for no parts, or parts of several dimensions."""
        whole: Moments | None = None
        for part in parts:
            whole = cls.empty(part.mean.size) if whole is None else whole
            whole.merge(part)
        if whole is None:
            raise TimeloomError("There are no moments to merge.")
        return whole

    def add(self, features: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Take in rows.

        Args:
            features: (n, D), or (n, F, D), whose frames are rows.
            weights: (n,), how often each video counts; all of its frames alike. By default once.

        Raises:
            TimeloomError: values that are not finite, or another D.
        """
        videos = np.asarray(features, dtype=np.float64)
        rows = videos.reshape(-1, videos.shape[-1])
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows).all(axis=1)).sum())
            raise TimeloomError(f"{bad} of {len(rows)} rows of features are not finite.")
        per_row = np.ones(len(rows))
        if weights is not None:
            per_row = np.repeat(np.asarray(weights, dtype=np.float64), len(rows) // max(1, len(videos)))
        total = float(per_row.sum())
        if total == 0:
            return
        mean = per_row @ rows / total
        away = (rows - mean) * np.sqrt(per_row)[:, None]
        self.merge(Moments(total, mean, away.T @ away))

    def merge(self, other: Moments) -> None:
        """Take in all rows of `other`. Raises TimeloomError where it has another D."""
        if other.mean.shape != self.mean.shape:
            raise TimeloomError(f"Moments of {other.mean.size} features cannot be added to those of {self.mean.size}.")
        total = self.count + other.count
        if total == 0:
            return
        step = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(step, step * (self.count * other.count / total))
        self.mean = self.mean + step * (other.count / total)
        self.count = total

    def covariance(self, ddof: int = 1) -> Array:
        """(D, D): the scatter over count − ddof; 1 is unbiased, and what `np.cov` does, 0 is the rows' own.

        Raises:
            TimeloomError: too few rows.
        """
        if self.count <= ddof:
            raise TimeloomError(f"A covariance with ddof {ddof} needs more than {ddof} rows, not {self.count:g}.")
        return self.scatter / (self.count - ddof)
