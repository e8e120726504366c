"""From videos to numbers: features of each through the networks that a protocol's metrics need, then the metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console

from timeloom.data.table_builder import cache_folder
from timeloom.errors import TimeloomError
from timeloom.evaluate.feature_cache import FeatureCache
from timeloom.evaluate.metrics import FeatureSet, Metric
from timeloom.evaluate.metrics.features import Places
from timeloom.evaluate.networks import load_extractor
from timeloom.evaluate.networks.extractor import Extractor
from timeloom.evaluate.protocol import ClipRule, Protocol
from timeloom.evaluate.video_sets import VideoSet, reason
from timeloom.evaluate.windows import ReadWindow
from timeloom.tensor_cache import TensorCache

CLIPS_AT_ONCE, FRAMES_AT_ONCE = 8, 64
TEXTS_AT_ONCE = 256

Count = Callable[[int], None]


@dataclass(frozen=True)
class Means:
    """What features are computed with."""

    device: torch.device
    workers: int
    """Processes that decode."""
    status: Console


def read_rule(rule: ClipRule, seed: int, real: bool) -> ReadWindow:
    """How frames of a video are taken; a generated one is seen from its start."""
    place = rule.real_window if real else "start"
    return ReadWindow(rule.num_frames, rule.fps, rule.height, rule.width, place, seed if place == "random" else 0)


def measure(protocol: Protocol, fake: VideoSet, real: VideoSet | None, means: Means) -> list[dict[str, Any]]:
    """Every metric of the protocol, as `Result.to_json` has it, with the `features` that it rests on.

    Raises:
        TimeloomError: weights that are not there, too few videos, features that are not finite.
    """
    found: dict[str, dict[str, Any]] = {}
    for extractor, metrics in networks(protocol, means.device):
        known = compute(extractor, metrics, protocol, fake, real, means)
        for metric in metrics:
            features, reference = known[metric.output, False], known.get((metric.output, True))
            if metric.reference == "texts":
                features = _with_texts(features, fake.texts)
                reference = text_features(extractor, {name: fake.texts[name] for name in features.keys})
            result = metric.measure(features, reference if metric.reference else None)
            found[metric.name] = {**result.to_json(), "features": extractor.protocol}
    return [found[name] for name in protocol.metrics]


def compute(
    extractor: Extractor,
    metrics: Sequence[Metric],
    protocol: Protocol,
    fake: VideoSet,
    real: VideoSet | None,
    means: Means,
) -> dict[tuple[str, bool], FeatureSet]:
    """{(output, whether real): features} of all that the metrics of one network need."""
    known: dict[tuple[str, bool], FeatureSet] = {}
    for metric in metrics:
        sets = [(fake, False), *([(real, True)] if real is not None and metric.reference == "videos" else [])]
        for videos, is_real in sets:
            if (metric.output, is_real) not in known:
                read = read_rule(protocol.clip, protocol.seed, is_real)
                known[metric.output, is_real] = video_features(videos, extractor, metric.output, read, means)
    return known


def networks(protocol: Protocol, device: torch.device) -> Iterator[tuple[Extractor, list[Metric]]]:
    """Each network that metrics need, one in memory at a time, with its metrics.

    Raises:
        TimeloomError: clips of fewer or more frames than a network takes, besides what loaders raise.
    """
    metrics = protocol.make_metrics()
    for name in dict.fromkeys(metric.network for metric in metrics):
        extractor = load_extractor(name, device=device, **protocol.networks.get(name, {}))
        extractor.batch_size = CLIPS_AT_ONCE if extractor.takes == "clips" else FRAMES_AT_ONCE
        frames = protocol.clip.num_frames
        if frames < extractor.min_frames or frames > (extractor.max_frames or frames):
            most = f" and at most {extractor.max_frames}" if extractor.max_frames else ""
            raise TimeloomError(
                f"{name} takes clips of at least {extractor.min_frames} frames{most}, and the protocol has {frames}."
            )
        yield extractor, [metric for metric in metrics if metric.network == name]


def video_features(videos: VideoSet, extractor: Extractor, output: str, read: ReadWindow, means: Means) -> FeatureSet:
    """Features of a set of videos, each computed once and then kept."""
    cache = FeatureCache(extractor.protocol, output, asdict(read))
    look = getattr(extractor, output)
    with counting(f"{extractor.name}: {videos.label}", len(videos.files), means.status) as done:
        broken = cache.fill(videos.files, read, look, CLIPS_AT_ONCE, done=done, workers=means.workers)
    for name, why in broken.items():
        videos.failed[name] = f"{extractor.name}: {reason(why, videos.files[name])}"
    return cache.open(videos.files, {**videos.missing, **broken}, videos.label)


def _with_texts(features: FeatureSet, texts: Mapping[str, str]) -> FeatureSet:
    """The videos whose prompts are known; the others are missing."""
    unknown = {name: "its prompt is not known" for name in features.keys if name not in texts}
    if not unknown:
        return features
    places = np.array([place for place, name in enumerate(features.keys) if name in texts], dtype=np.int64)
    if not len(places):
        raise TimeloomError(
            f"{features.label}: the prompt of none of the {len(unknown)} videos is known. Put a captions.csv with file "
            "and caption beside them, or name them as VBench does: PROMPT-0.mp4."
        )
    return FeatureSet(
        [features.keys[place] for place in places],
        lambda chosen: features.take(places[chosen]),
        {**features.missing, **unknown},
        features.label,
    )


def text_features(extractor: Any, texts: Mapping[str, str]) -> FeatureSet:
    """Features of texts under the names of their videos, each text computed once and then kept."""
    cache = TensorCache(cache_folder() / "features", extractor.protocol, "texts")
    paths = {text: cache.path(hashlib.sha256(text.encode()).hexdigest()) for text in dict.fromkeys(texts.values())}
    wanted = [text for text, path in paths.items() if cache.get(path) is None]
    for start in range(0, len(wanted), TEXTS_AT_ONCE):
        batch = wanted[start : start + TEXTS_AT_ONCE]
        for text, row in zip(batch, extractor.text_features(batch), strict=True):
            cache.put(paths[text], torch.from_numpy(row))
    names = list(texts)

    def read(places: Places) -> Any:
        rows = [cache.read(paths[texts[names[place]]]) for place in places]
        return torch.stack([row for row in rows if row is not None])

    return FeatureSet(names, read, label="texts")


@contextmanager
def counting(what: str, total: int, status: Console) -> Iterator[Count]:
    """A progress bar, and the function that it is moved on by."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=status) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
