"""CLIPSIM (Wu et al. 2021, GODIVA, arXiv 2104.14806): how well the frames of a video fit its text, by CLIP.

The cosine between the embeddings of frame and text, a mean over the frames of a video, then over videos. It is the
plain cosine, as papers report it (0.28 …); some code says 100 times, some 2.5 times that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import CHUNK, Array, FeatureSet, listed
from timeloom.evaluate.metrics.metric import Metric, Result, require_same_dimensions
from timeloom.evaluate.metrics.uncertainty import LEAST, interval


def clip_similarity(frames: FeatureSet | ArrayLike, texts: FeatureSet | ArrayLike) -> Array:
    """CLIPSIM of each video, (N,), in the order of `frames`.

    Args:
        frames: image embeddings (N, F, D), of any length; (N, D) is one frame each.
        texts: text embeddings (N, D); where both are sets, the text of a video has the video's name.

    Raises:
        TimeloomError: a video without a text, an embedding of length 0, or values that are not finite.
    """
    videos, captions = FeatureSet.of(frames, "frames"), FeatureSet.of(texts, "texts")
    videos.check(1, "CLIPSIM")
    captions.check(1, "CLIPSIM")
    place_of = {key: place for place, key in enumerate(captions.keys)}
    without = [key for key in videos.keys if key not in place_of]
    if without:
        raise TimeloomError(f"{videos.label}: {len(without)} of {len(videos)} videos have no text: {listed(without)}.")
    require_same_dimensions(videos, captions.dimensions)
    values = np.zeros(len(videos))
    for places, images in videos.chunks():
        own = np.array([place_of[videos.keys[place]] for place in places])
        text = captions.take(own)
        if text.ndim != 2:
            raise TimeloomError(f"{captions.label}: CLIPSIM needs one embedding a text, not {text.shape[1:]}.")
        images = images if images.ndim == 3 else images[:, None]
        names = [videos.keys[place] for place in places]
        cosines = np.einsum("nfd,nd->nf", _unit(images, names, videos.label), _unit(text, names, captions.label))
        values[places] = cosines.mean(axis=1)
    return values


def _unit(embeddings: Array, names: list[str], label: str) -> Array:
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    empty = (lengths == 0).reshape(len(embeddings), -1).any(axis=1)
    if empty.any():
        bad = [name for name, is_empty in zip(names, empty, strict=True) if is_empty]
        raise TimeloomError(f"{label}: {len(bad)} videos have an embedding of length 0: {listed(bad)}.")
    return embeddings / lengths


@dataclass(frozen=True)
class ClipSimilarity(Metric):
    """CLIPSIM over all videos; the interval resamples videos."""

    replicates: int = 1000
    """Resamples for the interval; 0 for none."""
    confidence: float = 0.95
    """Of the interval."""
    seed: int = 0
    """Of the resamples."""

    reference: ClassVar[Literal["videos", "texts"] | None] = "texts"
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def measure(self, features: FeatureSet, reference: FeatureSet | None = None) -> Result:
        """As `Metric.measure`; the reference holds the texts, under the names of the videos."""
        if not isinstance(reference, FeatureSet):
            raise TimeloomError(f"{self.name} needs the features of the texts that were asked for.")
        values = clip_similarity(features, reference)
        total, count = np.zeros(self.replicates), np.zeros(self.replicates)
        if len(features) >= LEAST:
            for start in range(0, len(features), CHUNK):
                places = np.arange(start, min(start + CHUNK, len(features)))
                weights = features.poisson(places, self.replicates, self.seed)
                total += weights @ values[places]
                count += weights.sum(axis=1)
        resampled = total / count if len(features) >= LEAST else np.zeros(0)
        value = float(values.mean())
        return self.result(features, value, interval(value, resampled, self.confidence), len(reference))
