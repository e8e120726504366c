"""What a recipe takes from model folders, and what it refuses of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from timeloom.errors import TimeloomError
from timeloom.train.diffusion import DiffusionTask
from timeloom.train.recipe import Recipe
from timeloom.train.tasks import build_task

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
WEIGHTS = {part: "diffusion_pytorch_model.safetensors" for part in ("unet", "vae")} | {
    "text_encoder": "model.safetensors"
}


def with_model(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with other options in `model`; None leaves one out."""
    raw = recipe.model_dump(mode="json")
    raw["model"] |= changes
    return Recipe.model_validate(raw)


def build(recipe: Recipe) -> DiffusionTask:
    task = build_task(recipe, CPU)
    assert isinstance(task, DiffusionTask)
    return task


def test_a_folders_mechanism_stays_unless_the_recipe_says_another(
    tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("video", trained_runs)
    unet = build(with_model(recipe, shift_fraction=0.125, shift_placement="residual_start")).unet
    unet.save_pretrained(tmp_path / "model/unet")
    folder = str(tmp_path / "model")
    for temporal in (None, "shift"):
        config = build(with_model(recipe, unet=folder, temporal=temporal)).unet.config
        assert (config.temporal, config.shift_fraction, config.shift_placement) == ("shift", 0.125, "residual_start")
    config = build(with_model(recipe, unet=folder, temporal="shift", shift_fraction=0.25)).unet.config
    assert (config.temporal, config.shift_fraction) == ("shift", 0.25)
    assert build(with_model(recipe, unet=folder, temporal="none")).unet.config.temporal == "none"


def test_a_video_recipe_that_names_no_mechanism_wants_a_model_that_has_one(
    tiny_recipe: MakeRecipe, trained_runs: Path
) -> None:
    with pytest.raises(TimeloomError, match=r"model\.temporal is missing"):
        build(with_model(tiny_recipe("video", trained_runs), temporal=None))


def test_a_noise_schedule_is_the_folders_but_for_what_the_recipe_says(
    tiny_recipe: MakeRecipe, trained_runs: Path
) -> None:
    recipe = tiny_recipe("video", trained_runs)
    own = build(recipe).schedule.config
    said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    task = build(with_model(recipe, noise_schedule=said))
    config = task.schedule.config
    assert {name: config[name] for name in said} == said and config.timestep_spacing == "trailing"
    assert config.beta_end == own.beta_end and own.prediction_type == "epsilon"
    assert task.pipeline().scheduler.config.prediction_type == "v_prediction"
    with pytest.raises(TimeloomError, match="rescale_betas_zero_snr needs prediction_type: v_prediction"):
        build(with_model(recipe, noise_schedule={"rescale_betas_zero_snr": True}))


def test_few_timesteps_are_validated_too(tiny_recipe: MakeRecipe, trained_runs: Path) -> None:
    task = build(with_model(tiny_recipe("video", trained_runs), noise_schedule={"num_train_timesteps": 20}))
    from timeloom.train.task import Batch, SampleRandom

    batch = Batch.of(torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8).numpy(), ["one"])
    assert set(task.validate(batch, SampleRandom(0, [0]))) == {"loss", *(f"loss_t{t:03d}" for t in (1, 5, 10, 15, 19))}


DAMAGES = {
    "not a number": (lambda tensors, name: tensors | {name: tensors[name] * float("nan")}, "not finite"),
    "lost": (lambda tensors, name: {key: value for key, value in tensors.items() if key != name}, "lacks|missing"),
    "too many": (lambda tensors, name: tensors | {"more.weight": torch.ones(2)}, "no place for|unknown"),
    "another shape": (lambda tensors, name: tensors | {name: torch.ones(1, 2)}, "shape"),
}


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_network_is_named(
    tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path, part: str, damage: str
) -> None:
    model = shutil.copytree(trained_runs / "video/model", tmp_path / "model")
    file = model / part / WEIGHTS[part]
    tensors = load_file(file)
    change, said = DAMAGES[damage]
    save_file(change(tensors, max(tensors)), file)
    with pytest.raises(TimeloomError, match=f"{part}.*({said})"):
        build(with_model(tiny_recipe("video", trained_runs), **{part: str(model)}))


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_network_that_is_cut_short_is_named(
    tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path, part: str
) -> None:
    model = shutil.copytree(trained_runs / "video/model", tmp_path / "model")
    file = model / part / WEIGHTS[part]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TimeloomError, match=f"Cannot load the {part} in"):
        build(with_model(tiny_recipe("video", trained_runs), **{part: str(model)}))
