"""Distances and likeness of *digits* clips on the features of digits-features, beside what the judge says.

    looker = Looker()
    made, real = looker.look(clips, prompts), looker.look(draw_real_clips(prompts, protocol), prompts)
    measure(made, real)["digits-fvd"].value

What is compared with are the real clips that the prompts were written about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from timeloom.data.clip import Frames
from timeloom.evaluate.digits_protocol import Prompt
from timeloom.evaluate.metrics import METRICS, FeatureSet, Result
from timeloom.evaluate.metrics.clip_similarity import clip_similarity
from timeloom.evaluate.metrics.frechet import FrechetMetric, moments_of
from timeloom.evaluate.networks.digits import load_digits_image, load_digits_text_video, load_digits_video

DISTANCES_OF_VIDEOS, DISTANCES_OF_IMAGES = ("digits-fvd", "digits-kvd"), ("digits-fid", "digits-kid")
LIKENESS = "digits-clipsim"

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Looked:
    """What digits-features says of some clips, each under the number of its prompt."""

    names: tuple[str, ...]
    features: Rows
    """(N, 128)."""
    clips: Rows | None = None
    """(N, 64), beside texts; of videos alone."""
    texts: Rows | None = None
    """(N, 64), of the prompts."""

    @classmethod
    def joined(cls, parts: Sequence[Looked]) -> Looked:
        """All clips of all parts; they are all of videos, or all of images."""

        def join(rows: Callable[[Looked], Rows | None]) -> Rows | None:
            return None if rows(parts[0]) is None else np.concatenate([cast(Rows, rows(part)) for part in parts])

        names = tuple(name for part in parts for name in part.names)
        features = np.concatenate([part.features for part in parts])
        return cls(names, features, join(lambda part: part.clips), join(lambda part: part.texts))

    def set_of(self, rows: Rows, label: str) -> FeatureSet:
        """Some of its rows as metrics want them."""
        return FeatureSet(self.names, lambda places: rows[places], label=label)

    def similarities(self) -> NDArray[np.float64]:
        """(N,) of each clip with its prompt."""
        assert self.clips is not None and self.texts is not None
        return clip_similarity(self.set_of(self.clips, "clips"), self.set_of(self.texts, "prompts"))


class Looker:
    """digits-features on a device. `weights` is another training of it."""

    def __init__(self, device: torch.device | str = "cpu", weights: Path | None = None) -> None:
        self.video = load_digits_video(weights, device=device)
        self.image = load_digits_image(weights, device=device)
        self.text_video = load_digits_text_video(weights, device=device)

    def look(self, clips: Frames, prompts: Sequence[Prompt]) -> Looked:
        """Look at clips (B, F, H, W, 3), one a prompt; clips of one frame are images."""
        names = tuple(f"{prompt.index:05d}" for prompt in prompts)
        if clips.shape[1] == 1:
            return Looked(names, self.image.features(clips))
        texts = self.text_video.text_features([prompt.text for prompt in prompts])
        return Looked(names, self.video.features(clips), self.text_video.features(clips), texts)


def measure(made: Looked, real: Looked) -> dict[str, Result]:
    """Every metric of videos, or of images; raises TimeloomError as they do."""
    generated, reference = made.set_of(made.features, "clips"), real.set_of(real.features, "real clips")
    distances = DISTANCES_OF_IMAGES if made.clips is None else DISTANCES_OF_VIDEOS
    found = {name: METRICS[name].measure(generated, reference) for name in distances}
    if made.clips is not None and made.texts is not None:
        beside, texts = made.set_of(made.clips, "clips"), made.set_of(made.texts, "prompts")
        found[LIKENESS] = METRICS[LIKENESS].measure(beside, texts)
    return found


def resampled(made: Looked, real: Looked) -> NDArray[np.float64]:
    """Fréchet distances of resamples, the same ones for every model's clips of the same prompts: they can be paired."""
    distances = DISTANCES_OF_IMAGES if made.clips is None else DISTANCES_OF_VIDEOS
    metric = cast(FrechetMetric, METRICS[distances[0]])
    return metric.resampled(made.set_of(made.features, "clips"), moments_of(real.set_of(real.features, "real clips")))
