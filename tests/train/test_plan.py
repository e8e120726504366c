import pytest
import torch

from timeloom.errors import TimeloomError
from timeloom.train.command import main
from timeloom.train.plan import META, Machines, make_plan
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")


@pytest.mark.parametrize("task", ["text_encoder", "autoencoder", "image", "video"])
def test_a_plan_counts_the_networks_that_training_builds(tiny_recipe, trained_runs, task, tmp_path):
    recipe = tiny_recipe(task, trained_runs)
    plan, _ = make_plan(recipe)
    built = build_task(recipe, CPU)
    built.prepare(trained_runs / task, [])
    assert plan.trained == sum(parameter.numel() for parameter in built.network.parameters())
    assert plan.frozen == {name: sum(p.numel() for p in part.parameters()) for name, part in built.frozen().items()}
    assert plan.flops_per_sample > 2 * plan.activation_bytes_per_sample > 0
    assert plan.memory_bytes(3) - plan.memory_bytes(1) == 2 * plan.activation_bytes_per_sample


def test_a_clip_costs_as_many_images_as_it_has_frames(tiny_recipe, trained_runs):
    """The shift adds no operation; the text's keys and values are computed once a clip."""
    image, video = (make_plan(tiny_recipe(task, trained_runs))[0] for task in ("image", "video"))
    assert 3.5 < video.flops_per_sample / image.flops_per_sample <= 4


def test_frozen_parameters_need_no_gradient_and_no_moments(tiny_recipe, trained_runs):
    recipe = tiny_recipe("video", trained_runs)
    model = recipe.model.model_copy(update={"trainable": ["*.attn1.*"]})
    whole, part = make_plan(recipe)[0], make_plan(recipe.model_copy(update={"model": model}))[0]
    still = whole.trained - part.trained
    assert whole.state_bytes - part.state_bytes == 4 * (5 - 1) * still
    assert whole.checkpoint_bytes - part.checkpoint_bytes == 4 * 3 * still


def test_no_weights_are_read(tiny_recipe, trained_runs):
    task = build_task(tiny_recipe("video", trained_runs), META)
    networks = (task.network, *task.frozen().values())
    assert all(parameter.is_meta for network in networks for parameter in network.parameters())


def test_time_is_operations_over_speed(tiny_recipe, trained_runs):
    plan, _ = make_plan(tiny_recipe("image", trained_runs))
    machines = Machines(devices=4, tflops=100.0, mfu=0.5)
    assert plan.device_seconds(machines) == pytest.approx(plan.flops_per_sample / 50e12)


def test_the_dry_run_prints_and_trains_nothing(tiny_recipe, trained_runs, tmp_path, capsys):
    import yaml

    recipe = tiny_recipe("video", trained_runs, tmp_path / "run")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert main([str(path), "--dry-run", "--devices", "32", "--mfu", "0.35"]) == 0
    printed = capsys.readouterr().out
    assert "16 in 4 steps" in printed and "hours on 32 devices" in printed and "temporal: shift" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--devices", "0"], ["--mfu", "1.5"], ["--mfu", "0"], ["--tflops", "nan"]])
def test_impossible_machines_are_refused(words):
    with pytest.raises(TimeloomError, match=words[0]):
        main(["digits/image", "--dry-run", *words])
