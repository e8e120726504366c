import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from timeloom import recipes
from timeloom.data.order import Order
from timeloom.data.sources import open_sources
from timeloom.errors import TimeloomError
from timeloom.models.rcan import RCAN, Discriminator
from timeloom.train.engine import Trainer
from timeloom.train.feed import Feed
from timeloom.train.recipe import Recipe, load_recipe
from timeloom.train.task import SampleRandom
from timeloom.train.tasks import build_task
from timeloom.train.upscaler import UpscalerTask
from timeloom.train.upscaler_gan import Adversaries
from timeloom.upscaler import Upscaler

CPU = torch.device("cpu")
WEIGHTS = "model/upscaler/diffusion_pytorch_model.safetensors"


def tiny(task: str, output: Path, **changes) -> Recipe:
    return Recipe.model_validate(
        {
            "task": task,
            "output": str(output),
            "data": {"num_frames": 2, "height": 32, "width": 32, "validation_clips": 2},
            "model": {
                "upscaler": {"num_groups": 1, "num_blocks": 1, "width": 8, "reduction": 2, "scale": 2},
                "discriminator": {"width": 4},
            },
            "degradation": {"h264": 0.5},
            "loss": {"crop": 24},
            "optimizer": {"learning_rate": 1e-3},
            "schedule": {
                **{"total_samples": 16, "batch_size": 4, "log_every": 4},
                **{"validate_every": 8, "checkpoint_every": 4},
            },
            "ema_half_life_samples": 8,
            "precision": "fp32",
            "workers": 0,
            **changes,
        }
    )


def train(recipe: Recipe) -> Trainer:
    trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
    trainer.run()
    return trainer


@pytest.mark.parametrize("task", ["upscaler", "upscaler_gan"])
def test_stopping_and_going_on_gives_the_same_bits_of_both_networks(task: str, stop_after, tmp_path: Path) -> None:
    whole = train(tiny(task, tmp_path / "whole"))
    recipe = tiny(task, tmp_path / "stopped")
    stop_after(12, recipe)
    assert not (tmp_path / "stopped/model").exists()
    resumed = train(recipe)
    states = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (tmp_path / "stopped" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert any("discriminator" in name and "_u" in name for name in states[0]) == (task == "upscaler_gan")

    upscaler = Upscaler.from_pretrained(tmp_path / "whole/model")
    assert upscaler.scale == 2
    stats = [json.loads(line) for line in (tmp_path / "whole/stats.jsonl").read_text().splitlines()]
    assert any("validation/psnr_db_bicubic" in line for line in stats)
    assert list((tmp_path / "whole/previews").glob("*.png"))
    with whole.average.applied():
        averaged = {name: value.clone() for name, value in whole.task.upscaler.state_dict().items()}
    saved = load_file(tmp_path / "whole" / WEIGHTS)
    assert all(torch.equal(averaged[name], saved[name]) for name in saved)


@pytest.mark.parametrize("kind", ["l1", "psnr"])
def test_the_error_of_pixels_is_the_mean_absolute_one_or_minus_the_psnr(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build_task(tiny("upscaler", tmp_path, loss={"pixels": kind}), CPU)
    small, large = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 16, 16)
    monkeypatch.setattr(task, "pairs", lambda batch, random: (small, large))
    error = (task.upscaler(small) - large).abs()
    wanted = error.mean() if kind == "l1" else sum(10 * frame.square().mean().log10() for frame in error) / 3
    assert task.loss(None, None)[0].item() == pytest.approx(wanted.item())  # type: ignore[arg-type]


def test_each_term_of_the_loss_reaches_one_network_alone() -> None:
    """What two optimizers would get: the gradients of two losses, each of its own network."""
    torch.manual_seed(0)
    upscaler = RCAN(num_groups=1, num_blocks=1, width=8, reduction=2, scale=2)
    discriminator = Discriminator(width=4).eval()  # no power iteration, so that all calls see the same weights
    small, large = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    both = Adversaries(upscaler, discriminator, gan_weight=0.3)
    both.train()
    discriminator.eval()
    loss, terms = both(small, large)
    loss.backward()
    joint = {name: parameter.grad.clone() for name, parameter in both.named_parameters()}
    both.zero_grad()

    made = upscaler(small)
    generator_loss = (made - large).abs().mean() + 0.3 * (1 + (-discriminator(made)).exp()).log().mean()
    own = torch.autograd.grad(generator_loss, list(upscaler.parameters()))
    for (name, _), gradient in zip(upscaler.named_parameters(), own, strict=True):
        torch.testing.assert_close(joint[f"upscaler.{name}"], gradient)
    real, false = discriminator(large).sigmoid(), discriminator(made.detach()).sigmoid()
    own = torch.autograd.grad(-(real.log().mean() + (1 - false).log().mean()), list(discriminator.parameters()))
    for (name, _), gradient in zip(discriminator.named_parameters(), own, strict=True):
        torch.testing.assert_close(joint[f"discriminator.{name}"], gradient)
    assert terms.keys() == {"pixel", "deceived", "discriminator"}
    assert all(parameter.requires_grad for parameter in both.parameters())


def test_the_small_clip_shows_what_the_large_one_does(tmp_path: Path) -> None:
    recipe = tiny("upscaler", tmp_path, degradation={"first": {"blur": 0}, "second": {"blur": 0}, "last_sinc": 0})
    task = build_task(recipe, CPU)
    from timeloom.train.feed import read_batch

    source = Trainer(recipe, task, CPU).training
    batch = read_batch(source, [0, 1, 2], recipe.data.window, [0.0, 0.5, 1.0])
    small, large = task.pairs(batch, SampleRandom(0, [0, 1, 2]))
    assert small.shape == (6, 3, 12, 12) and large.shape == (6, 3, 24, 24)
    again = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    apart = (again - large).abs().mean(dim=(1, 2, 3))
    assert (apart < (again - large.roll(2, 0)).abs().mean(dim=(1, 2, 3))).all()


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(TimeloomError, match="scale 3"):
        build_task(tiny("upscaler", tmp_path, model={"upscaler": {"scale": 3}}), CPU)
    with pytest.raises(TimeloomError, match=r"model\.upscaler is missing"):
        build_task(tiny("upscaler", tmp_path, model={}), CPU)
    with pytest.raises(TimeloomError, match=r"model\.vae is missing"):
        build_task(tiny("upscaler", tmp_path, degradation={"autoencoder": 1}), CPU)
    with pytest.raises(ValueError, match="ddp"):
        tiny("upscaler", tmp_path, parallel="fsdp")


def test_a_plan_counts_it_by_hand(tmp_path: Path) -> None:
    from timeloom.train.plan import make_plan

    recipe = tiny("upscaler", tmp_path, loss={"crop": 0}, data={"num_frames": 1, "height": 32, "width": 32})
    plan = make_plan(recipe)[0]
    pixels, width = 16 * 16, 8
    convolutions = 3 * width + (2 + 1 + 1) * width**2 + width * 4 * width + 4 * width * 3
    attention = 2 * 2 * width * (width // 2)
    forward = 2 * 9 * convolutions * pixels + attention
    first = 2 * 9 * 3 * width * pixels  # no gradient to the frames
    assert plan.flops_per_sample == pytest.approx(3 * forward - first, rel=1e-3)


def test_degraded_clips_are_drawn_with_their_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from timeloom.cli import main

    sheet = tmp_path / "degraded.png"
    command = ["data", "degrade", "digits/upscaler", "--output", str(sheet), "--clips", "2", "--json"]
    changes = ["data.num_frames=2", "data.height=64", "data.width=64", "loss.crop=64"]
    assert main([*command, "--set", *changes]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) == 2 and {"caption", "first", "second", "seed", "h264_crf"} <= told[0].keys()
    assert sheet.is_file()
    recipe = load_recipe(recipes.find("digits/upscaler"), changes)
    task, seen = UpscalerTask(recipe, torch.device("cpu")), []
    degrade = task.degrader
    task.degrader = lambda large, seeds: seen.extend(seeds) or degrade(large, seeds)  # type: ignore[assignment]
    training, _ = open_sources(recipe.data, recipe.seed)
    feed = Feed(Order(training, recipe.data.window, recipe.seed, 1), workers=0, windows=recipe.data.windows)
    task.pairs(feed.batch([0, 1]), SampleRandom(recipe.seed, [0, 1]))
    trained = [json.loads(json.dumps(degrade.sample(seed).to_json())) for seed in seen]
    assert trained == [{name: value for name, value in one.items() if name != "caption"} for one in told]
    assert main(command) == 2  # exists
    assert main(["data", "degrade", "digits/image", "--output", str(tmp_path / "no.png")]) == 2
    assert "trains the image" in capsys.readouterr().err
