"""VideoFactory's training: two phases, several sources with images beside videos, wide-screen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from timeloom.data import write_image
from timeloom.data.sources import describe_shares, open_sources
from timeloom.errors import TimeloomError
from timeloom.generate.pipeline import TextToVideoPipeline
from timeloom.models.swap import SwapAttention
from timeloom.models.unet import VideoUNet
from timeloom.train.engine import Trainer
from timeloom.train.recipe import Recipe
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")
SWAP = {"width": 0.5, "window": [2, 4, 4]}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of captioned pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        write_image(folder / f"{number}.png", np.full((64, 112, 3), 80 * number, np.uint8))
        (folder / f"{number}.txt").write_text("a red seven")
    return folder


def recipe_of(tiny_recipe, runs, output, unet, swap, sources=None, **data):
    """A wide-screen recipe of the tiny video task with `swap` as its mechanism."""
    options = tiny_recipe("video", runs, output).model_dump(mode="json", exclude_unset=True)
    options["model"] |= {"temporal": "swap", "swap": swap, "unet": str(unet)}
    own = {"sources": sources} if sources else {}
    options["data"] = {**options["data"], "height": 64, "width": 112, **own, **data}
    return Recipe.model_validate(options)


def train(recipe):
    Trainer(recipe, build_task(recipe, CPU), CPU).run()
    return [json.loads(line) for line in (recipe_folder(recipe) / "stats.jsonl").read_text().splitlines()]


def recipe_folder(recipe):
    return Path(recipe.output)


@pytest.fixture(scope="module")
def phase_one(tiny_recipe, trained_runs, pictures, tmp_path_factory):
    """A finished run of the first phase on two styles of digits and on pictures: its recipe and its log."""
    sources = [
        {"colours": ["red"], "weight": 2},
        {"colours": ["blue"], "weight": 1},
        {"source": "images", "path": str(pictures), "weight": 1},
    ]
    folder = tmp_path_factory.mktemp("swap") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwapAttention, "forward", lambda *_: pytest.fail("phase one computes Swap-CA"))
        recipe = recipe_of(
            tiny_recipe, trained_runs, folder, trained_runs / "image/model", {**SWAP, "queries": "none"}, sources
        )
        return recipe, train(recipe)


def test_the_second_phase_begins_with_the_network_that_the_first_left(phase_one, tiny_recipe, trained_runs, tmp_path):
    recipe, _ = phase_one
    first = recipe_folder(recipe) / "model"
    second = recipe_of(tiny_recipe, trained_runs, tmp_path / "two", first, SWAP)
    task = build_task(second, CPU)
    assert task.unet.temporal_mechanism.swaps
    before = VideoUNet.from_pretrained(first, subfolder="unet")
    before.load_state_dict({key: value.clone() for key, value in before.state_dict().items()}, assign=True)
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 4, 8, 14, generator=random), 500, torch.randn(2, 5, 16, generator=random)
    with torch.no_grad():
        assert torch.equal(task.unet.eval()(*inputs).sample, before(*inputs).sample)
    Trainer(
        second, build_task(second, CPU), CPU
    ).run()  # and every tensor of Swap-CA gets a gradient: the engine checks
    after = VideoUNet.from_pretrained(tmp_path / "two/model", subfolder="unet")
    assert all(swap.proj_out.weight.any() for swap in after.temporal_mechanism.swaps.values())
    pipe = TextToVideoPipeline.from_pretrained(tmp_path / "two/model")
    assert pipe("a red seven", seeds=[0], num_inference_steps=2).frames.shape == (1, 4, 64, 112, 3)


def test_shares_of_sources_and_images_are_logged(phase_one):
    recipe, log = phase_one
    steps = [line for line in log if "share/images" in line]
    titles = [f"share/{options.title}" for options in recipe.data.sources]
    assert [options.title for options in recipe.data.sources[:2]] == ["digits in red", "digits in blue"]
    assert all(sum(line[title] for title in titles) == 1 for line in steps)
    assert [line[titles[2]] for line in steps].count(1.0) == 1  # pictures have a batch in four for themselves
    over_all = [sum(line[title] for line in steps) / len(steps) for title in titles]
    assert over_all == [0.5, 0.25, 0.25]
    # of the clips every fourth is seen as images; a batch of pictures is images alone
    assert all(line["share/images"] == (1.0 if line[titles[2]] else 0.25) for line in steps)


def test_sources_that_run_dry_are_told(phase_one):
    recipe, _ = phase_one
    training, _ = open_sources(recipe.data, recipe.seed)
    lines = describe_shares(recipe.data, training, 100)
    assert lines[0] == (
        "digits in red: 50.0% of every stretch of samples, its clips seen 5e-05 times; it does not run dry"
    )
    assert lines[2].endswith("its clips seen 8.33 times; it runs dry every 12 samples and begins anew")


def test_a_first_phase_of_another_shape_is_one_sentence(phase_one, tiny_recipe, trained_runs, tmp_path):
    first = recipe_folder(phase_one[0]) / "model"
    with pytest.raises(
        TimeloomError, match=r"another shape than asked for, 'temporal_mechanism.*goes on with the options"
    ):
        build_task(recipe_of(tiny_recipe, trained_runs, tmp_path, first, {**SWAP, "width": 1.0}), CPU)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ([5, 4, 4], "windows of 5 frames are larger than the clips, which have 4; give at most 4, or 0"),
        ([4, 9, 4], "windows of 9 rows of latents are larger than the clips, which have 8"),
        ([4, 8, 15], "windows of 15 columns of latents are larger than the clips, which have 14"),
    ],
)
def test_windows_larger_than_the_clips_are_refused(window, message, tiny_recipe, trained_runs, tmp_path):
    recipe = recipe_of(tiny_recipe, trained_runs, tmp_path, trained_runs / "image/model", {**SWAP, "window": window})
    with pytest.raises(TimeloomError, match=f"model.swap.window: {message}"):
        build_task(recipe, CPU)


def test_heads_that_do_not_divide_are_refused(tiny_recipe, trained_runs, tmp_path):
    recipe = recipe_of(tiny_recipe, trained_runs, tmp_path, trained_runs / "image/model", {**SWAP, "heads": 3})
    with pytest.raises(TimeloomError, match=r"swap\.heads: 3 heads do not divide the 4 channels"):
        build_task(recipe, CPU)


def test_wide_screen_buckets(tiny_recipe, trained_runs, tmp_path):
    """344 x 192 and its shape upright: latents 43 x 24, an odd side."""
    recipe = recipe_of(
        tiny_recipe,
        trained_runs,
        tmp_path,
        trained_runs / "image/model",
        {**SWAP, "window": [2, 8, 8]},
        height=192,
        width=344,
        buckets=[[192, 344], [344, 192]],
        num_frames=2,
    )
    task = build_task(recipe, CPU)
    pipe = task.pipeline()
    assert pipe("a red seven", seeds=[0], num_frames=1, num_inference_steps=1).frames.shape == (1, 1, 192, 344, 3)
