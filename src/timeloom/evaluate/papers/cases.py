"""What is judged of each model, and doing it once: clips, verdicts and features stay in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timeloom.data.clip import Frames
from timeloom.evaluate import command
from timeloom.evaluate.digits_metrics import Looked, Looker, measure, reference, resampled
from timeloom.evaluate.digits_protocol import Prompt, Protocol, draw_real_clips, for_images, make_prompts
from timeloom.evaluate.metrics import FeatureSet
from timeloom.evaluate.papers.models import IMAGE_MODEL, Group, Model
from timeloom.tensor_cache import TensorCache


@dataclass(frozen=True)
class Sampling:
    """How clips are made."""

    sampler: str
    steps: int

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps"


@dataclass(frozen=True)
class Case:
    """The clips or images of a kind of model, its mechanism in place or taken out."""

    label: str
    kind: str
    """"videos" or "images"."""
    without: bool = False
    sampling: Sampling | None = None
    """Where it is not that of all."""

    @property
    def name(self) -> str:
        made = f", {self.sampling}" if self.sampling else ""
        return f"{self.label}{' taken out' if self.without else ''}, {self.kind}{made}"


@dataclass(frozen=True)
class Budget:
    """The same for all models."""

    num_prompts: int
    sampling: Sampling
    guidance: float
    batch_size: int
    device: str


def cases_of(group: Group, samplings: list[Sampling]) -> list[Case]:
    """Videos and images of all, with their mechanism and without; the first one by several samplers."""
    cases = []
    for label in group.runs:
        if label == IMAGE_MODEL:
            cases.append(Case(label, "images"))
        else:
            cases += [Case(label, kind, without) for kind in ("videos", "images") for without in (False, True)]
    moving = [label for label in group.runs if label != IMAGE_MODEL]
    return cases + [Case(moving[0], "videos", sampling=sampling) for sampling in samplings if moving]


@dataclass(frozen=True)
class Judged:
    """What is known of one model's clips."""

    model: Model
    result: dict[str, Any]
    """What `timeloom evaluate` says: marks, the judge on real clips, the protocol."""
    looked: Looked
    metrics: dict[str, Any]
    """{name: Result as JSON}."""
    real: FeatureSet
    real_metrics: dict[str, float]
    """The same metrics of the real clips that the prompts were written about."""
    folder: Path

    @cached_property
    def resampled(self) -> NDArray[np.float64]:
        """Fréchet distances of resamples."""
        return resampled(self.looked, self.real)

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        names = ("num_prompts", "protocol", "protocol_sha256", "model_right", "judge", "marks", "seconds")
        return {
            **{name: self.result[name] for name in names},
            "metrics": self.metrics,
            "real_metrics": self.real_metrics,
            "likeness": self.looked.similarities().round(5).tolist() if self.looked.clips is not None else None,
        }


class Bench:
    """Judges models by cases, in a folder; what is there already is not made again."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder, self.budget = folder, budget
        self._looker: Looker | None = None

    @property
    def looker(self) -> Looker:
        if self._looker is None:
            from timeloom.device import choose_device

            self._looker = Looker(choose_device(self.budget.device))
        return self._looker

    def __call__(self, model: Model, case: Case) -> Judged:
        """Generate and judge by `timeloom evaluate`, then measure."""
        sampling = case.sampling or self.budget.sampling
        made = f"{sampling.sampler}-{sampling.steps}-guidance-{self.budget.guidance:g}"
        kind = f"{case.kind}{'-without' if case.without else ''}"
        folder = self.folder / f"{model.folder.parent.name}-{model.sha256[:12]}" / f"{kind}-{made}"
        prompts = make_prompts(self.budget.num_prompts)
        prompts = for_images(prompts) if case.kind == "images" else prompts
        result = _kept(folder)
        if result is None or result["num_prompts"] != len(prompts):
            words = ["--model", str(model.folder), "--output", str(folder)]
            words += ["--num-prompts", str(self.budget.num_prompts), "--guidance", str(self.budget.guidance)]
            words += ["--sampler", sampling.sampler, "--steps", str(sampling.steps)]
            words += ["--batch-size", str(self.budget.batch_size), "--device", self.budget.device]
            words += ["--frames", "1"] if case.kind == "images" else []
            _evaluate(*words, *(["--without-temporal"] if case.without else []))
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return self._measure(model, folder, result, prompts)

    def _measure(self, model: Model, folder: Path, result: dict[str, Any], prompts: list[Prompt]) -> Judged:
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in result["protocol"].items()
        }
        protocol = Protocol(**fields)
        real = reference(self.looker, protocol)
        window = protocol.num_frames, protocol.fps, protocol.height, protocol.width
        looked = self._look(folder, prompts, lambda: read_clips(folder, prompts), protocol.sha256)
        shown = self._look(self.folder / "real", prompts, lambda: draw_real_clips(prompts, protocol), window)
        metrics = {name: found.to_json() for name, found in measure(looked, real).items()}
        real_metrics = {name: found.value for name, found in measure(shown, real).items()}
        return Judged(model, result, looked, metrics, real, real_metrics, folder)

    def _look(self, folder: Path, prompts: list[Prompt], clips: Callable[[], Frames], *of: Any) -> Looked:
        """`Looker.look`, kept in the folder as one table."""
        cache = TensorCache(folder / "looked", self.looker.text_video.protocol)
        path = cache.path([(prompt.index, prompt.text) for prompt in prompts], len(prompts[0].attributes), *of)
        names = tuple(f"{prompt.index:05d}" for prompt in prompts)
        table = cache.get(path)
        if table is None:
            looked = self.looker.look(clips(), prompts)
            parts = [part for part in (looked.features, looked.clips, looked.texts) if part is not None]
            cache.put(path, torch.from_numpy(np.concatenate(parts, axis=1)))
            return looked
        sizes = (self.looker.video.dimension, *[self.looker.text_video.dimension] * 2)
        parts = [part.numpy() for part in table.split(sizes if table.shape[1] > sizes[0] else sizes[:1], dim=1)]
        return Looked(names, *parts)


def _kept(folder: Path) -> dict[str, Any] | None:
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _evaluate(*words: str) -> None:
    """Run `timeloom evaluate`; what it prints goes to the screen, beside the result."""
    print(f"\n$ timeloom evaluate {shlex.join(words)}", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        command.main(list(words))


def read_clips(folder: Path, prompts: list[Prompt]) -> Frames:
    """Clips that `timeloom evaluate` left there, uint8 (B, F, H, W, 3)."""
    clips = []
    for prompt in prompts:
        with np.load(folder / "clips" / f"{prompt.index:05d}.npz", allow_pickle=False) as stored:
            clips.append(stored["frames"])
    return np.stack(clips)
