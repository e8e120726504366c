import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from timeloom.data.clip import Window
from timeloom.data.digits import CLASSES, DigitsSource
from timeloom.errors import TimeloomError
from timeloom.models.video_classifier import VideoClassifier
from timeloom.train.features import UNKNOWN, accuracies, classification
from timeloom.train.feed import read_batch
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")
WINDOW = Window(4, 2, 64, 64)


def batch(count: int = 4) -> Batch:
    return read_batch(DigitsSource(), list(range(count)), WINDOW, [0.0] * count)


def test_classes_that_are_not_known_cost_and_count_nothing() -> None:
    logits = {"digit": torch.tensor([[9.0, 0.0], [0.0, 9.0]]), "motion": torch.zeros(2, 4)}
    some = {"digit": torch.tensor([0, UNKNOWN]), "motion": torch.tensor([UNKNOWN, 3])}
    assert classification(logits, some).item() == pytest.approx(math.log(4), abs=1e-3)
    assert accuracies(logits, some)["digit"] == 1
    none = {name: torch.full((2,), UNKNOWN) for name in some}
    assert classification(logits, none).item() == 0


def test_ground_truth_comes_with_digits_and_its_lack_is_no_error(
    tiny_recipe: Callable[..., Recipe], trained_runs: Path, tmp_path: Path
) -> None:
    task = build_task(tiny_recipe("features", trained_runs, tmp_path), CPU)
    clips = batch()
    assert all(set(example.attributes) == set(CLASSES) for example in clips.examples)
    told, metrics = task.loss(clips, SampleRandom(0, [0, 1, 2, 3]))
    assert {"contrast", "naming", "naming_images", *CLASSES} <= set(metrics)
    untold = Batch.of(np.stack([example.frames.numpy() for example in clips.examples]), clips.captions)
    loss, metrics = task.loss(untold, SampleRandom(0, [0, 1, 2, 3]))
    assert metrics["naming"] == 0 and loss.item() == pytest.approx(metrics["contrast"].item())
    loss.backward()  # captions alone teach, too
    assert told.item() > loss.item()


def test_an_image_has_no_motion(tiny_recipe: Callable[..., Recipe], trained_runs: Path, tmp_path: Path) -> None:
    task = build_task(tiny_recipe("features", trained_runs, tmp_path), CPU)
    task.recipe = task.recipe.model_copy(update={"loss": task.recipe.loss.model_copy(update={"image_share": 0.99})})
    loss, metrics = task.loss(batch(2), SampleRandom(0, [5, 6]))  # both are seen as images
    loss.backward()
    assert "contrast" not in metrics
    heads = task.network.classifier.heads
    assert heads["digit"].weight.grad.any() and not heads["motion"].weight.grad.any()


def test_what_is_saved_is_the_network_and_the_name_of_its_text_encoder(trained_runs: Path) -> None:
    folder = trained_runs / "features" / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("text_encoder") == str(trained_runs / "text_encoder/model")
    assert len(config.pop("text_encoder_sha256")) == 64
    VideoClassifier(**config).load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert {name: tuple(values) for name, values in config["classes"].items()} == CLASSES
    stats = [json.loads(line) for line in (trained_runs / "features/stats.jsonl").read_text().splitlines()]
    assert {"validation/matched", "validation/digit", "validation/image_colour"} <= set(stats[-1])
    assert (trained_runs / "features/previews").is_dir()


def test_a_wrong_size_is_named(tiny_recipe: Callable[..., Recipe], trained_runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("features", trained_runs, tmp_path)
    model = recipe.model.model_copy(update={"features": {"depth": 3}})
    with pytest.raises(TimeloomError, match=r"model\.features: .*depth"):
        build_task(recipe.model_copy(update={"model": model}), CPU)
