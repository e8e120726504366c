import pytest

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.evaluate.papers.models import IMAGE_MODEL, find_group

SHIFT = {"temporal": "shift", "shift_fraction": 0.25}
SWAP = {"temporal": "swap", "swap": {"queries": "spatial_first", "heads": 2}}


def recipe(seed=0, **options):
    return {"output": f"runs/{seed}", "seed": seed, "optimizer": {}, **options}


def test_the_zoo_is_what_is_there_where_nothing_is_named():
    group = find_group(())
    assert {model.name for models in group.runs.values() for model in models} == set(zoo.generators())
    assert group.first_of("shift") == "shift"
    assert group.first_of("nothing") is None


def test_a_folder_of_runs_seeds_are_runs_of_one_kind(make_model, tmp_path):
    make_model("runs/image", {})
    for seed in (0, 1):
        make_model(f"runs/shift-{seed}", SHIFT, recipe(seed), losses=[0.5, 0.25 + seed])
    (tmp_path / "runs" / "shift-2").mkdir()
    (tmp_path / "runs" / "shift-2" / "recipe.json").write_text("{}")
    group = find_group([str(tmp_path / "runs")])
    assert {label: [model.name for model in models] for label, models in group.runs.items()} == {
        IMAGE_MODEL: ["image"],
        "shift": ["shift-0", "shift-1"],
    }
    assert [model.held_out_loss for model in group.runs["shift"]] == [0.25, 1.25]
    assert [model.seed for model in group.runs["shift"]] == [0, 1]
    assert group.left_out == [f"{tmp_path / 'runs' / 'shift-2'}: no model yet"]


def test_options_in_which_models_differ_are_in_their_labels(make_model):
    other = {**SWAP, "swap": {"queries": "temporal", "heads": 2}}
    folders = [make_model("time", other), make_model("both", SWAP), make_model("shift", SHIFT)]
    group = find_group([str(folder) for folder in folders])
    assert list(group.runs) == ["temporal asks", "swap", "shift"]
    assert group.first_of("swap") == "swap"


def test_what_most_models_share_is_not_in_their_labels(make_model):
    usual = {"queries": "spatial_first", "heads": 2, "window": [8, 8, 8], "skips": True}
    changes = [{}, {"queries": "none"}, {"window": [0, 0, 0]}, {"window": [4, 8, 8]}, {"skips": False}, {"heads": 1}]
    folders = [
        make_model(f"model-{number}", {"temporal": "swap", "swap": {**usual, **change}})
        for number, change in enumerate(changes)
    ]
    group = find_group([str(folder) for folder in folders])
    labels = ["swap", "plain addition", "swap, global", "swap, 4x8x8 windows", "swap, without skips", "swap, heads 1"]
    assert list(group.runs) == labels


def test_trainings_that_cannot_be_told_apart_are_refused(make_model, tmp_path):
    make_model("shift-a", SHIFT, recipe(0, optimizer={"learning_rate": 1}))
    make_model("shift-b", SHIFT, recipe(1, optimizer={"learning_rate": 2}))
    with pytest.raises(TimeloomError, match="shift-a, shift-b are all of the kind 'shift'"):
        find_group([str(tmp_path)])


def test_a_second_phase_goes_on_from_its_own_seeds_first(make_model, tmp_path):
    for seed in (0, 1):
        make_model(f"swap-{seed}", SWAP, recipe(seed, model={"unet": f"runs/first-{seed}/model"}))
    group = find_group([str(tmp_path / f"swap-{seed}") for seed in (0, 1)])
    assert [model.name for model in group.runs["swap"]] == ["swap-0", "swap-1"]
    make_model("swap-2", SWAP, recipe(2, model={"unet": "runs/elsewhere/model"}))
    with pytest.raises(TimeloomError, match="not by one recipe"):
        find_group([str(tmp_path)])


def test_a_number_in_the_name_of_a_folder_above_is_no_seed(make_model, tmp_path):
    for seed in (0, 1):
        make_model(f"swap-{seed}", SWAP, recipe(seed, model={"unet": "disk-0/runs/image/model"}))
    assert len(find_group([str(tmp_path)]).runs["swap"]) == 2


def test_a_folder_without_models_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(TimeloomError, match="There is no model in"):
        find_group([str(tmp_path)])
    with pytest.raises(TimeloomError, match="Did you mean 'digits-shift'"):
        find_group(["digits-shfit"])
