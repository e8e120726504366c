"""The inception score (Salimans et al. 2016, arXiv 1606.03498): on images with Inception's logits, on video with C3D's.

    IS = exp( mean over videos of KL( p(class | video) ‖ p(class) ) ),   p(class) the mean over the videos of a split

On video it is C3D finetuned on UCF-101 (Saito et al. 2020, TGANv2, arXiv 1811.09245). The score grows with the videos
of a split, so N and the splits belong to it: TGANv2 takes 2,048 videos in one split, ten times over; others cut 2,048
videos into ten splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import Array, FeatureSet, Places
from timeloom.evaluate.metrics.metric import Metric, Result
from timeloom.evaluate.metrics.uncertainty import LEAST, interval


def inception_score(logits: ArrayLike, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation of the score over splits of the videos, in the order they come.

    Args:
        logits: (N, classes), or (N, F, classes) whose frames are images of their own; before the softmax.
        splits: equal parts of the videos, each scored alone.

    Raises:
        TimeloomError: fewer than 2 videos a split, or values that are not finite.
    """
    videos = FeatureSet.of(logits, "logits")
    scores = _scores(videos, _splits(videos, np.arange(len(videos)), splits, "the inception score"))[0]
    return float(scores.mean()), float(scores.std())


def _splits(videos: FeatureSet, order: Places, splits: int, name: str) -> list[Places]:
    if splits < 1:
        raise TimeloomError(f"{name} needs at least 1 split, not {splits}.")
    videos.check(2 * splits, f"{name} in {splits} {'split' if splits == 1 else 'splits'}")
    return np.array_split(order, splits)


def _scores(videos: FeatureSet, splits: list[Places], replicates: int = 0, seed: int = 0) -> Array:
    """(1 + replicates, splits): the score of each split, then of resamples of its videos."""
    scores = np.zeros((1 + replicates, len(splits)))
    for split, places in enumerate(splits):
        total = np.zeros((1 + replicates, 1))
        negative_entropy = np.zeros(1 + replicates)
        chances = np.zeros((1 + replicates, videos.dimensions))
        for part, logits in videos.chunks(places):
            weights = np.concatenate([np.ones((1, len(part))), videos.poisson(part, replicates, seed)])
            logs = _log_softmax(logits if logits.ndim == 3 else logits[:, None])
            chance = np.exp(logs)
            total += weights.sum(axis=1, keepdims=True)
            negative_entropy += weights @ (chance * logs).sum(axis=2).mean(axis=1)
            chances += weights @ chance.mean(axis=1)
        share = chances / total
        of_all = (share * np.log(np.maximum(share, np.finfo(np.float64).tiny))).sum(axis=1)
        scores[:, split] = np.exp(negative_entropy / total[:, 0] - of_all)
    return scores


def _log_softmax(logits: Array) -> Array:
    away = logits - logits.max(axis=-1, keepdims=True)
    return away - np.log(np.exp(away).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class InceptionScore(Metric):
    """The inception score. Which video is in which split depends on the seed and the videos' names.

    Usual code cuts the videos in the order they come; where they are sorted by class, every split then looks poor.
    """

    splits: int = 10
    """Equal parts of the videos, each scored alone; the value is their mean."""
    replicates: int = 100
    """Resamples for the interval; 0 for none."""
    confidence: float = 0.95
    """Of the interval."""
    seed: int = 0
    """Of the splits and of the resamples."""

    output: ClassVar[Literal["features", "logits"]] = "logits"
    reference: ClassVar[Literal["videos", "texts"] | None] = None
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def measure(self, features: FeatureSet, reference: Any = None) -> Result:
        """As `Metric.measure`; no reference. `details` has the standard deviation over the splits."""
        splits = _splits(features, features.order(self.seed), self.splits, self.name)
        enough = min(len(places) for places in splits) >= LEAST
        scores = _scores(features, splits, self.replicates if enough else 0, self.seed)
        value = float(scores[0].mean())
        bounds = interval(value, scores[1:].mean(axis=1), self.confidence)
        return self.result(features, value, bounds, standard_deviation_of_splits=float(scores[0].std()))
