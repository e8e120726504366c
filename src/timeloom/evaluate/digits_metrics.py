"""Distances and likeness of *digits* clips on the features of digits-features, beside what the judge says.

    looked = Looker().look(clips, prompts)            # clips made for the prompts of the protocol digits
    measure(looked, reference(Looker(), protocol))    # {"digits-fvd": Result, ...}

Real clips to compare with are drawn: others than those that the prompts were written about, of the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from timeloom.data.clip import Frames
from timeloom.data.table_builder import cache_folder
from timeloom.evaluate.digits_protocol import Prompt, Protocol, draw_real_clips, for_images, make_prompts
from timeloom.evaluate.metrics import METRICS, FeatureSet, Result
from timeloom.evaluate.metrics.clip_similarity import clip_similarity
from timeloom.evaluate.metrics.frechet import FrechetMetric, moments_of
from timeloom.evaluate.networks.digits import load_digits_image, load_digits_text_video, load_digits_video
from timeloom.tensor_cache import TensorCache

OF_VIDEOS, OF_IMAGES = ("digits-fvd", "digits-kvd", "digits-clipsim"), ("digits-fid", "digits-kid")
REFERENCE_CLIPS = 512
REFERENCE_SEED = 2304_08477
"""Of the real clips that are compared with; far from the seeds of prompts."""
CHUNK = 32
"""Real clips in memory at once."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Looked:
    """What digits-features says of some clips, each under the number of its prompt."""

    names: tuple[str, ...]
    features: Array
    """(N, 128)."""
    clips: Array | None = None
    """(N, 64), beside texts; of videos alone."""
    texts: Array | None = None
    """(N, 64), of the prompts."""

    @classmethod
    def joined(cls, parts: Sequence[Looked]) -> Looked:
        """All clips of all parts; they are all of videos, or all of images."""
        first = parts[0]

        def join(rows: Callable[[Looked], Array | None]) -> Array | None:
            return None if rows(first) is None else np.concatenate([cast(Array, rows(part)) for part in parts])

        names = tuple(name for part in parts for name in part.names)
        features = np.concatenate([part.features for part in parts])
        return cls(names, features, join(lambda part: part.clips), join(lambda part: part.texts))

    def set_of(self, rows: Array, label: str) -> FeatureSet:
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


def reference(looker: Looker, protocol: Protocol) -> FeatureSet:
    """Features of real test clips, drawn once and then kept in Timeloom's cache."""
    style = protocol.colours, protocol.backgrounds
    prompts = make_prompts(REFERENCE_CLIPS, REFERENCE_SEED, *style)
    prompts = for_images(prompts) if protocol.num_frames == 1 else prompts
    extractor = looker.image if protocol.num_frames == 1 else looker.video
    window = protocol.num_frames, protocol.fps, protocol.height, protocol.width
    cache = TensorCache(cache_folder() / "features", extractor.protocol, "features", "real digits")
    path = cache.path(REFERENCE_SEED, len(prompts), window, style)
    rows = cache.get(path)
    if rows is None:
        others = replace(protocol, seed=REFERENCE_SEED)
        chunks = (prompts[first : first + CHUNK] for first in range(0, len(prompts), CHUNK))
        rows = torch.from_numpy(
            np.concatenate([extractor.features(draw_real_clips(chunk, others)) for chunk in chunks])
        )
        cache.put(path, rows)
    return FeatureSet.of(rows.numpy(), "real clips")


def measure(looked: Looked, real: FeatureSet) -> dict[str, Result]:
    """Every metric of videos, or of images."""
    generated = looked.set_of(looked.features, "clips")
    if looked.clips is None or looked.texts is None:
        return {name: METRICS[name].measure(generated, real) for name in OF_IMAGES}
    found = {name: METRICS[name].measure(generated, real) for name in OF_VIDEOS[:2]}
    beside, texts = looked.set_of(looked.clips, "clips"), looked.set_of(looked.texts, "prompts")
    return {**found, OF_VIDEOS[2]: METRICS[OF_VIDEOS[2]].measure(beside, texts)}


def resampled(looked: Looked, real: FeatureSet) -> NDArray[np.float64]:
    """Fréchet distances of resamples, the same ones for every model's clips of the same prompts: they can be paired."""
    metric = cast(FrechetMetric, METRICS[OF_VIDEOS[0] if looked.clips is not None else OF_IMAGES[0]])
    return metric.resampled(looked.set_of(looked.features, "clips"), moments_of(real))


def values(found: Mapping[str, Result]) -> dict[str, float]:
    """Of each metric its number alone."""
    return {name: result.value for name, result in found.items()}
