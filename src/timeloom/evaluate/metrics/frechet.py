"""The Fréchet distance between two sets of features: FVD, FID and CLIP-FID are this, on other networks' features.

    d² = |μ_a − μ_b|² + tr Σ_a + tr Σ_b − 2 tr (Σ_a Σ_b)^½

(Dowson and Landau 1982; FID: Heusel et al. 2017, arXiv 1706.08500; FVD: Unterthiner et al. 2018, arXiv 1812.01717.)
With Σ = Rᵀ R the last trace is the sum of the singular values of R_a R_bᵀ. So no square root of a matrix is taken, and
sets of fewer videos than features, whose covariances have no full rank, are exact: their R are the centred features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import Array, FeatureSet, Places
from timeloom.evaluate.metrics.metric import Metric, Result, require_same_dimensions
from timeloom.evaluate.metrics.moments import Moments
from timeloom.evaluate.metrics.uncertainty import LEAST, Extrapolation, fit_line, interval, resampled_moments

TOLERANCE = 1e-6
"""A covariance may miss symmetry, or have eigenvalues below 0, by this share of its largest; more is no rounding."""


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike, ddof: int = 1) -> float:
    """The squared Fréchet distance between the Gaussians of two sets, in float64.

    Args:
        features_a: (N, D), N at least 2.
        features_b: (M, D), M at least 2.
        ddof: of the covariances: 1 is unbiased, as `np.cov`; some implementations of FVD use 0.

    Raises:
        TimeloomError: too few rows, other shapes, or values that are not finite.
    """
    mean_a, root_a = _from_features(features_a, "features_a", ddof)
    mean_b, root_b = _from_features(features_b, "features_b", ddof)
    _require_same_length(mean_a, mean_b)
    return _distance(mean_a, root_a, mean_b, root_b)


def frechet_distance_from_moments(mean_a: ArrayLike, cov_a: ArrayLike, mean_b: ArrayLike, cov_b: ArrayLike) -> float:
    """The squared Fréchet distance between two Gaussians, in float64.

    Args:
        mean_a: (D,).
        cov_a: (D, D).
        mean_b: (D,).
        cov_b: (D, D).

    Raises:
        TimeloomError: shapes that do not fit, values that are not finite, or a matrix that is no covariance.
    """
    mean_a, root_a = _from_moments(mean_a, cov_a, "a")
    mean_b, root_b = _from_moments(mean_b, cov_b, "b")
    _require_same_length(mean_a, mean_b)
    return _distance(mean_a, root_a, mean_b, root_b)


def _distance(mean_a: Array, root_a: Array, mean_b: Array, root_b: Array) -> float:
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * overlap
    return max(0.0, float(distance))  # below 0 by rounding alone


def _from_features(features: ArrayLike, label: str, ddof: int) -> tuple[Array, Array]:
    """Mean (D,) and R with Rᵀ R = Σ: the centred features themselves, or their triangle (D, D) where that is less."""
    array = np.asarray(features)
    if array.ndim != 2:
        raise TimeloomError(f"{label}: a Fréchet distance needs features (N, D), not {array.shape}.")
    videos = FeatureSet.of(array, label)
    videos.check(max(2, ddof + 1), "a Fréchet distance")
    rows = np.concatenate([part for _, part in videos.chunks()])
    mean = rows.mean(axis=0)
    rows -= mean
    rows /= np.sqrt(len(rows) - ddof)
    return mean, rows if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(rows, mode="r"))


def _from_moments(mean: ArrayLike, covariance: ArrayLike, label: str) -> tuple[Array, Array]:
    centre, matrix = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    if centre.ndim != 1 or matrix.shape != (len(centre), len(centre)) or len(centre) == 0:
        raise TimeloomError(f"mean_{label} {centre.shape} and cov_{label} {matrix.shape} are not (D,) and (D, D).")
    if not (np.isfinite(centre).all() and np.isfinite(matrix).all()):
        bad = int((~np.isfinite(centre)).sum() + (~np.isfinite(matrix)).sum())
        raise TimeloomError(f"mean_{label} and cov_{label} hold {bad} values that are not finite.")
    return centre, _root(matrix, f"cov_{label}")


def _root(covariance: Array, label: str) -> Array:
    """R (r, D) with Rᵀ R = Σ, r its rank. What rounding put below 0, or just above, is left out."""
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > TOLERANCE * largest:
        raise TimeloomError(f"{label} is not symmetric, so it is no covariance.")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -TOLERANCE * max(values[-1], 0.0):
        raise TimeloomError(
            f"{label} is no covariance: it has the eigenvalue {values[0]:.3g}, and {values[-1]:.3g} is its largest."
        )
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def _require_same_length(mean_a: Array, mean_b: Array) -> None:
    if mean_a.shape != mean_b.shape:
        raise TimeloomError(f"{mean_a.size} features a row cannot be compared with {mean_b.size}.")


def moments_of(features: FeatureSet, places: Places | None = None) -> Moments:
    """Moments of the videos at some places, by default of all, read a chunk at a time.

    Raises:
        TimeloomError: features that are not finite; `FeatureSet.check` says whose.
    """
    moments = Moments.empty(features.dimensions)
    for _, rows in features.chunks(places):
        moments.add(rows)
    return moments


@dataclass(frozen=True)
class FrechetMetric(Metric):
    """A Fréchet distance to real videos.

    The distance of finite sets is too large: two halves of one set are not 0 apart. `details["infinite"]` says where
    it leads as both sets grow (only the generated one, where the reference is given as moments).
    """

    ddof: int = 1
    """Of the covariances."""
    replicates: int = 100
    """Resamples for the interval; 0 for none."""
    confidence: float = 0.95
    """Of the interval."""
    parts: int = 8
    """For the limit, distances of a half, a third, ... of the videos, down to this part; below 3 for none."""
    seed: int = 0
    """Of the resamples and of the parts."""

    reference: ClassVar[Literal["videos", "texts"] | None] = "videos"
    better: ClassVar[Literal["lower", "higher"]] = "lower"

    def measure(self, features: FeatureSet, reference: FeatureSet | Moments | None = None) -> Result:
        """As `Metric.measure`; the reference is a set of features, or its moments."""
        if reference is None:
            raise TimeloomError(f"{self.name} needs the features of real videos to compare with.")
        for videos in (features, reference):
            if isinstance(videos, FeatureSet):
                videos.check(max(2, self.ddof + 1), self.name)
        real = moments_of(reference) if isinstance(reference, FeatureSet) else reference
        require_same_dimensions(features, len(real.mean))
        value = self._between(moments_of(features), real)
        bounds = interval(value, self.resampled(features, real), self.confidence)
        if bounds is not None:
            bounds = max(0.0, bounds[0]), bounds[1]
        count = len(reference) if isinstance(reference, FeatureSet) else round(reference.count)
        limit = self.extrapolate(features, reference)
        return self.result(features, value, bounds, count, infinite=None if limit is None else asdict(limit))

    def _between(self, fake: Moments, real: Moments) -> float:
        return frechet_distance_from_moments(
            fake.mean, fake.covariance(self.ddof), real.mean, real.covariance(self.ddof)
        )

    def resampled(self, features: FeatureSet, real: Moments) -> Array:
        """Distances of resamples. The eigenvalues of R Σ Rᵀ take half the time of `_distance`; their last digits,
        which are rounding, do not matter here."""
        if len(features) < LEAST:
            return np.zeros(0)
        root = _root(real.covariance(self.ddof), "the reference's covariance")
        distances = []
        for moments in resampled_moments(features, self.replicates, self.seed):
            covariance = moments.covariance(self.ddof)
            overlap = np.sqrt(np.linalg.eigvalsh(root @ covariance @ root.T).clip(min=0)).sum()
            apart = np.square(moments.mean - real.mean).sum()
            distances.append(float(apart + np.trace(covariance) + np.square(root).sum() - 2 * overlap))
        return np.array(distances)

    def extrapolate(self, features: FeatureSet, reference: FeatureSet | Moments) -> Extrapolation | None:
        """The distance at infinite N; None where the smallest part would have fewer than 32 videos.

        A line in 1/N is true only while parts have clearly more videos than the features have dimensions that matter;
        `distances` of the answer shows whether it is one.
        """
        fewest = min(len(features), len(reference)) if isinstance(reference, FeatureSet) else len(features)
        parts = min(self.parts, fewest // LEAST)
        if parts < 3:
            return None
        fake, real = _parts(features, self.seed), _parts(reference, self.seed)
        return fit_line(
            [
                float(np.mean([self._between(fake(k, part), real(k, part)) for part in range(k)]))
                for k in range(1, parts + 1)
            ]
        )


def _parts(videos: FeatureSet | Moments, seed: int) -> Callable[[int, int], Moments]:
    """A function of k and j: the moments of part j of k of a set that was shuffled once. Moments have no parts."""
    if isinstance(videos, Moments):
        return lambda k, part: videos
    order = videos.order(seed)
    return lambda k, part: moments_of(videos, np.array_split(order, k)[part])
