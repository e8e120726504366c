"""Folders that look like models, and cases that nobody judged."""

import json
from pathlib import Path

import numpy as np
import pytest

from timeloom.evaluate.digits_metrics import Looked, measure
from timeloom.evaluate.papers.cases import Judged
from timeloom.evaluate.papers.models import Model


@pytest.fixture
def make_model(tmp_path):
    """make_model(name, config=..., recipe=...): a folder with an index and configs, and no weights."""

    def make(name, config=None, recipe=None, losses=()):
        folder = tmp_path / name / "model"
        (folder / "unet").mkdir(parents=True)
        index = {"num_frames": 16, "fps": 8.0, "height": 64, "width": 64}
        (folder / "model_index.json").write_text(json.dumps(index))
        (folder / "unet" / "config.json").write_text(json.dumps(config or {}))
        (folder / "unet" / "weights.safetensors").write_text(name)
        if recipe is not None:
            (folder.parent / "recipe.json").write_text(json.dumps(recipe))
            lines = [json.dumps({"samples": 1, "validation/loss": loss}) for loss in losses]
            (folder.parent / "stats.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder

    return make


def looked(rows, likeness, seed=0):
    """N clips with features around `rows`, each as like its text as `likeness` says."""
    rng = np.random.default_rng(seed)
    count = len(likeness)
    clips = np.zeros((count, 2), np.float32)
    clips[:, 0], clips[:, 1] = likeness, np.sqrt(1 - np.square(likeness))
    features = (rows + 0.1 * rng.standard_normal((count, 3))).astype(np.float32)
    texts = np.tile(np.float32([1, 0]), (count, 1))
    return Looked(tuple(f"{i:05d}" for i in range(count)), features, clips, texts)


REAL = looked(0.0, np.full(40, 0.9), seed=9)


@pytest.fixture
def make_judged():
    """make_judged(marks, away=..., likeness=..., seed=..., **protocol): a run, `away` from the real clips."""

    def make(marks, away=0.0, likeness=0.5, seed=0, label="a", **protocol):
        likes = np.full(len(marks), likeness) + 0.01 * np.arange(len(marks)) / len(marks)
        seen = looked(away, likes, seed=1 + seed)
        real = Looked(seen.names, *(part[: len(marks)] for part in (REAL.features, REAL.clips, REAL.texts)))
        model = Model(label, Path(label), label, "shift", {}, {}, {"seed": seed}, None, label)
        told = {
            **{"num_frames": 16, "fps": 8.0, "height": 64, "width": 64, "num_inference_steps": 50},
            **{"guidance_scale": 3.0, "sampler": "ddpm", "seed": 0, "split": "test", **protocol},
        }
        result = {
            "num_prompts": len(marks),
            "protocol": told,
            "protocol_sha256": label,
            "model_right": {},
            "judge": {"all": {"all": {"value": 1.0}}},
            "marks": {"all": marks},
            "seconds": {"generation": 2.0 * len(marks), "judging": 1.0},
        }
        metrics = {name: found.to_json() for name, found in measure(seen, real).items()}
        return Judged(model, result, seen, real, metrics, Path(label))

    return make
