import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from timeloom.errors import TimeloomError
from timeloom.train.average import Average
from timeloom.train.checkpoints import Checkpoints
from timeloom.train.diffusion import DiffusionTask
from timeloom.train.engine import Trainer, _crosses, learning_rate
from timeloom.train.feed import Feed
from timeloom.train.parallel import Processes
from timeloom.train.recipe import OptimizerOptions, Recipe
from timeloom.train.task import Batch, SampleRandom
from timeloom.train.tasks import build_task

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")


def train(recipe: Recipe) -> Trainer:
    trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
    trainer.run()
    return trainer


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def test_all_four_stages_train_and_leave_models_that_generate(trained_runs: Path) -> None:
    from timeloom import TextToVideoPipeline

    pipeline = TextToVideoPipeline.from_pretrained(trained_runs / "video" / "model")
    frames = pipeline(["a red seven moves left"], seeds=[0], num_inference_steps=2).frames
    assert frames.shape == (1, 4, 64, 64, 3)
    stats = [json.loads(line) for line in (trained_runs / "video" / "stats.jsonl").read_text().splitlines()]
    assert {"loss", "video", "image", "samples_per_s"} <= set(stats[0])
    assert any("validation/loss_t500" in line for line in stats)
    assert list((trained_runs / "video" / "previews").glob("*.png"))


def test_the_video_network_has_the_image_networks_keys_and_the_frozen_parts_stay(trained_runs: Path) -> None:
    image, video = trained_runs / "image/model", trained_runs / "video/model"
    unets = [load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (image, video)]
    assert unets[0].keys() == unets[1].keys()
    assert any(not torch.equal(unets[0][key], unets[1][key]) for key in unets[0])
    assert weights(image / "vae") == weights(video / "vae")
    assert weights(image / "text_encoder") == weights(video / "text_encoder")


@pytest.mark.parametrize("task", ["text_encoder", "autoencoder", "video", "features"])
def test_stopping_and_going_on_gives_the_same_bits(
    tiny_recipe: MakeRecipe, task: str, trained_runs: Path, stop_after: Callable[..., None], tmp_path: Path
) -> None:
    recipe = tiny_recipe(task, trained_runs, tmp_path / "stopped")
    stop_after(12, recipe)
    assert not (tmp_path / "stopped/model").exists()
    train(recipe)
    assert weights(tmp_path / "stopped/model") == weights(trained_runs / task / "model")


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_gives_the_same_bits(
    tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("video", trained_runs, tmp_path / "run")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    command = [sys.executable, "-m", "timeloom", "train", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert first.stdout is not None
    for line in first.stdout:
        if line.strip().startswith("8 / 16"):
            first.send_signal(signal.SIGKILL)
            break
    first.wait()
    assert first.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "resuming after" in done.stdout
    assert weights(tmp_path / "run/model") == weights(trained_runs / "video/model")


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("image", trained_runs, tmp_path / "run")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "timeloom"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "train", str(path), "--device", "cpu"], check=True, env=environment, capture_output=True)
    two = load_file(tmp_path / "run/model/unet/diffusion_pytorch_model.safetensors")
    one = load_file(trained_runs / "image/model/unet/diffusion_pytorch_model.safetensors")
    logs = [(folder / "stats.jsonl").read_text().splitlines() for folder in (tmp_path / "run", trained_runs / "image")]
    losses = [[json.loads(line)["loss"] for line in log if '"loss"' in line] for log in logs]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    # Adam divides by the gradient's own size, so that where it is tiny, rounding decides about a step of at most 4e-3.
    differences = torch.cat([(two[key] - one[key]).abs().flatten() for key in one])
    assert differences.quantile(0.99) < 1e-5


def test_looking_at_the_weights_may_fail_and_costs_no_step(
    tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("video", trained_runs, tmp_path / "run")

    def fail(*_: object) -> None:
        raise TimeloomError("no memory")

    with monkeypatch.context() as patch, pytest.raises(TimeloomError, match="no memory"):
        patch.setattr(DiffusionTask, "preview", fail)
        train(recipe)
    trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
    assert trainer.samples == 8  # the first validation's
    trainer.run()
    assert weights(tmp_path / "run/model") == weights(trained_runs / "video/model")
    logs = [(folder / "stats.jsonl").read_text().splitlines() for folder in (tmp_path / "run", trained_runs / "video")]
    names = [[(line["samples"], sorted(line)[0]) for line in map(json.loads, log)] for log in logs]
    assert names[0] == names[1] and (8, "samples") in names[0]
    held_out = [[line for line in log if '"validation/loss"' in line] for log in logs]
    assert held_out[0] == held_out[1] and len(held_out[0]) == 2


def test_held_out_clips_are_validated_one_by_one(
    tiny_recipe: MakeRecipe, trained_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build_task(tiny_recipe("video", trained_runs), CPU)
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64, 3), np.uint8)
    batch = Batch.of(frames, ["one", "two", "three"])
    sizes = []
    error = task._error
    monkeypatch.setattr(task, "_error", lambda latents, *rest: sizes.append(len(latents)) or error(latents, *rest))
    together = task.validate(batch, SampleRandom(0, [0, 1, 2]))
    assert set(sizes) == {1}
    alone = [task.validate(batch.part(i, i + 1), SampleRandom(0, [i])) for i in range(3)]
    for name, value in together.items():
        assert value == pytest.approx(sum(one[name] for one in alone) / 3, rel=1e-6)


def test_other_clips_in_the_same_folder_are_refused(tiny_recipe: MakeRecipe, trained_runs: Path) -> None:
    recipe = tiny_recipe("image", trained_runs)
    known = trained_runs / "image/clips.json"
    before = known.read_text()
    try:
        known.write_text(json.dumps({**json.loads(before), "training": 7}))
        with pytest.raises(TimeloomError, match="on other data: 7 clips and 4 held out, and there are"):
            Trainer(recipe, build_task(recipe, CPU), CPU)
    finally:
        known.write_text(before)


def test_another_recipe_is_refused_in_the_same_folder(tiny_recipe: MakeRecipe, trained_runs: Path) -> None:
    recipe = tiny_recipe("image", trained_runs).model_copy(update={"seed": 7})
    with pytest.raises(TimeloomError, match="seed = 0, and this one has 7"):
        Trainer(recipe, build_task(recipe, CPU), CPU)


def test_what_only_says_how_may_change(tiny_recipe: MakeRecipe, trained_runs: Path) -> None:
    recipe = tiny_recipe("image", trained_runs, log_every=16, micro_batch_size=1)
    train(recipe.model_copy(update={"workers": 0, "gradient_checkpointing": True, "parallel": "fsdp"}))


def test_micro_batches_add_up_to_the_batch(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    """A batch of four clips, one of them seen as images, at once and clip by clip: the same first step."""
    before = load_file(trained_runs / "image/model/unet/diffusion_pytorch_model.safetensors")
    moved = []
    for size in (None, 1, 3):
        recipe = tiny_recipe("video", trained_runs, tmp_path / str(size), micro_batch_size=size)
        trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
        metrics = trainer._add_gradients([0, 1, 2, 3], trainer_batch(trainer))
        gradients = {name: p.grad.clone() for name, p in trainer.network.named_parameters()}
        assert gradients.keys() == before.keys()
        moved.append((metrics, gradients))
    for metrics, gradients in moved[1:]:
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, moved[0][1][name], rtol=1e-4, atol=1e-6)
        assert metrics["loss"] == pytest.approx(moved[0][0]["loss"], rel=1e-5)


def trainer_batch(trainer: Trainer):
    """The first batch of a run."""
    feed = Feed(trainer.order, workers=0)
    return feed.batch(list(range(trainer.recipe.schedule.batch_size)))


def test_bf16_is_close_to_fp32(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    losses = []
    for i, (precision, again) in enumerate([("fp32", False), ("bf16", False), ("bf16", True)]):
        recipe = tiny_recipe("video", trained_runs, tmp_path / str(i))
        recipe = recipe.model_copy(update={"precision": precision, "gradient_checkpointing": again})
        trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
        losses.append(trainer._add_gradients([0, 1, 2, 3], trainer_batch(trainer))["loss"])
    assert losses[0] != losses[1] == losses[2]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_only_chosen_parameters_change(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("video", trained_runs, tmp_path)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"trainable": ["*.attn1.*"]})})
    train(recipe)
    folders = (trained_runs / "image/model", tmp_path / "model")
    before, after = (load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in folders)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".attn1." in name}


def test_a_parameter_without_gradient_is_named(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("image", trained_runs, tmp_path)
    task = build_task(recipe, CPU)
    task.network.unused = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(TimeloomError, match="unused gets no gradient"):
        Trainer(recipe, task, CPU).run()


def test_a_loss_that_is_not_finite_stops_the_run(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("image", trained_runs, tmp_path)
    task = build_task(recipe, CPU)
    with torch.no_grad():
        task.network.conv_in.weight.fill_(float("nan"))
    with pytest.raises(TimeloomError, match="not finite"):
        Trainer(recipe, task, CPU).run()
    assert not (tmp_path / "model").exists()


def test_the_last_checkpoints_are_kept_and_unfinished_ones_are_no_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, Processes())
    for samples in (4, 8, 12):
        checkpoints.save(samples, {"network": {"weight": torch.full((2,), float(samples))}})
    (tmp_path / "000000000016.unfinished").mkdir()
    assert [int(path.name) for path in checkpoints.saved()] == [8, 12]
    weight = torch.zeros(2)
    assert checkpoints.load({"network": {"weight": weight}}) == 12
    assert weight.tolist() == [12, 12]


def test_a_damaged_checkpoint_says_which(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, Processes())
    state = {"network": {"weight": torch.zeros(2)}}
    checkpoints.save(4, state)
    for other in ({"weight": torch.zeros(3)}, {"bias": torch.zeros(2)}):
        with pytest.raises(TimeloomError, match=r"000000000004.*(Size mismatch|Missing key)"):
            checkpoints.load({"network": other})
    (file,) = (tmp_path / "000000000004").glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-1], bytes(len(whole))):
        file.write_bytes(damaged)
        with pytest.raises(TimeloomError, match="000000000004"):
            checkpoints.load(state)
    file.unlink()
    with pytest.raises(TimeloomError, match=r"files\.json"):
        checkpoints.load(state)


def test_learning_rate_warms_up_and_decays() -> None:
    options = OptimizerOptions(learning_rate=1.0, final_learning_rate=0.1, warmup_samples=10)
    rates = [learning_rate(options, samples, 110) for samples in range(111)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.55)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(OptimizerOptions(learning_rate=1.0), 5, 10) == 1.0


def test_average_follows_the_network_and_gives_it_back() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    average = Average(network, half_life=4)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average.update(batch_size=4, samples=1_000)  # one half-life
    with average.applied():
        assert network.weight.item() == pytest.approx(0.5)
    assert network.weight.item() == 1.0


def test_crossing_multiples() -> None:
    assert [_crosses(n, n + 3, 10) for n in (0, 6, 7, 8, 9, 10)] == [False, False, True, True, True, False]
