"""Judging while training: the same code, the same weights after."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from timeloom.evaluate.digits_protocol import make_prompts
from timeloom.train import evaluation
from timeloom.train.engine import Trainer
from timeloom.train.recipe import EvaluationOptions, Recipe
from timeloom.train.tasks import build_task

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
OPTIONS = EvaluationOptions(every=8, num_prompts=4)
METRICS = {"digit", "colour", "background", "motion", "all", "steady", "digits-fvd", "digits-kvd", "digits-clipsim"}


def train(recipe: Recipe) -> None:
    Trainer(recipe, build_task(recipe, CPU), CPU).run()


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def logged(run: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return {line.pop("samples"): line for line in lines if any(name.startswith("evaluation/") for name in line)}


@pytest.fixture(scope="module")
def evaluated(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("evaluated") / "run"
    train(tiny_recipe("video", trained_runs, run).model_copy(update={"evaluation": OPTIONS}))
    return run


def test_it_is_logged_when_it_is_due_and_changes_no_bit(evaluated: Path, trained_runs: Path) -> None:
    assert weights(evaluated / "model") == weights(trained_runs / "video/model")
    found = logged(evaluated)
    assert list(found) == [8, 16]
    assert {name.removeprefix("evaluation/") for name in found[16]} == METRICS
    assert found[16]["evaluation/digits-fvd"] > 0


def test_the_result_is_that_of_the_protocol(evaluated: Path) -> None:
    folder = evaluated / "evaluations" / "000000000016"
    result = json.loads((folder / "result.json").read_text())
    assert result["protocol"]["name"] == "digits" and result["protocol"]["num_inference_steps"] == 2
    assert result["num_prompts"] == len(result["marks"]["all"]) == 4
    assert sorted(path.stem for path in (folder / "clips").glob("*")) == [
        f"{prompt.index:05d}" for prompt in make_prompts(4)
    ]
    assert result["metrics"]["digits-fvd"]["value"] == logged(evaluated)[16]["evaluation/digits-fvd"]


def test_clips_of_the_same_weights_are_not_made_again_and_of_others_they_are(
    evaluated: Path, tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("video", trained_runs, tmp_path).model_copy(update={"evaluation": OPTIONS})
    task = build_task(recipe.model_copy(update={"model": at(recipe, evaluated)}), CPU)
    pipe, made = task.pipeline(), []
    monkeypatch.setattr(type(pipe), "__call__", counted(type(pipe).__call__, made))
    first = evaluation.evaluate(pipe, recipe, tmp_path / "there", CPU)
    assert len(made) == 1
    assert evaluation.evaluate(pipe, recipe, tmp_path / "there", CPU) == first
    assert len(made) == 1
    with torch.no_grad():
        pipe.unet.conv_in.bias += 1
    assert evaluation.evaluate(pipe, recipe, tmp_path / "there", CPU) != first
    assert len(made) == 2


def at(recipe: Recipe, run: Path):  # type: ignore[no-untyped-def]
    return recipe.model.model_copy(update={"unet": str(run / "model")})


def counted(call, made):  # type: ignore[no-untyped-def]
    def run(*arguments, **options):  # type: ignore[no-untyped-def]
        made.append(arguments)
        return call(*arguments, **options)

    return run


def test_only_what_makes_clips_is_evaluated(tiny_recipe: MakeRecipe, trained_runs: Path) -> None:
    options = tiny_recipe("autoencoder", trained_runs).model_dump()
    with pytest.raises(ValueError, match="only a U-Net makes clips"):
        Recipe.model_validate({**options, "evaluation": {"every": 8}})
