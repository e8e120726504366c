import json
import shutil

import pytest
import torch
from diffusers import UNet3DConditionModel
from safetensors.torch import load_file, save_file

from timeloom.generate.pipeline import TextToVideoPipeline
from timeloom.model.model_scope import our_key, their_key
from timeloom.models.unet import VideoUNet

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def clip(frames=3, height=8, width=8):
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, frames, 4, height, width, generator=random)
    return latents, torch.tensor([17, 900]), torch.randn(2, 5, 128, generator=random)


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.fixture(scope="module")
def converted(modelscope_folder, tmp_path_factory):
    """The tiny model with Swap-CA, converted once. Do not write to it."""
    from timeloom import cli

    made = tmp_path_factory.mktemp("converted") / "swap"
    assert cli.main(["model", "convert", str(modelscope_folder), str(made), "--temporal", "swap"]) == 0
    return made


def test_keys_there_and_back(modelscope_folder):
    keys = load_file(modelscope_folder / WEIGHTS).keys()
    ours = {our_key(key) for key in keys}
    assert len(ours) == len(keys)
    assert {their_key(key) for key in ours} == set(keys)
    assert sum(key.startswith("temporal_mechanism.") for key in ours) == sum("temp_" in key for key in keys) + sum(
        key.startswith("transformer_in.") for key in keys
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@torch.no_grad()
def test_it_computes_what_modelscopes_network_computes(converted, modelscope_folder, size):
    theirs = UNet3DConditionModel.from_pretrained(modelscope_folder, subfolder="unet").eval()
    ours = VideoUNet.from_pretrained(converted, subfolder="unet")
    latents, timestep, text = clip(3, *size)
    expected = theirs(latents.transpose(1, 2), timestep, text).sample.transpose(1, 2)
    assert relative_error(ours(latents, timestep, text).sample, expected) < 1e-5


@torch.no_grad()
def test_each_module_over_time_gives_what_its_original_gives(converted, modelscope_folder):
    theirs = UNet3DConditionModel.from_pretrained(modelscope_folder, subfolder="unet").eval()
    mechanism = VideoUNet.from_pretrained(converted, subfolder="unet").temporal_mechanism
    x = torch.randn(2 * 3, 32, 5, 4, generator=torch.Generator().manual_seed(1))
    for found, original in (
        (mechanism.convolutions["encoder_1_0"], theirs.down_blocks[1].temp_convs[0]),
        (mechanism.convolutions["decoder_0_1"], theirs.up_blocks[0].temp_convs[1]),
    ):
        assert relative_error(x + found(x, 3), original(x, num_frames=3)) < 1e-6
    for found, original in (
        (mechanism.attentions["middle_0_0"], theirs.mid_block.temp_attentions[0]),
        (mechanism.attentions["encoder_0_0"], theirs.down_blocks[0].temp_attentions[0]),
        (mechanism.attentions["input_0_0"], theirs.transformer_in),
    ):
        features = x[:, : original.in_channels]
        assert relative_error(features + found(features, 3), original(features, num_frames=3).sample) < 1e-6


def test_the_report_and_the_folder(modelscope_folder, tmp_path, run):
    code, out, err = run("convert", modelscope_folder, tmp_path / "made", "--temporal", "swap", "--json")
    assert code == 0, err
    unet = json.loads(out)["parts"][0]
    assert unet["taken"] == len(load_file(modelscope_folder / WEIGHTS))
    added = load_file(tmp_path / "made" / WEIGHTS).keys() - {
        our_key(key) for key in load_file(modelscope_folder / WEIGHTS)
    }
    assert len(added) == unet["added"]
    assert {key.split(".")[1] for key in added} == {"fusions", "swaps", "skips"}
    pipe = TextToVideoPipeline.from_pretrained(tmp_path / "made")
    frames = pipe("a cat", seeds=[0], num_frames=2, height=16, width=24, num_inference_steps=2).frames
    assert frames.shape == (1, 2, 16, 24, 3)


def test_options_of_swap(modelscope_folder, tmp_path, run):
    words = ("--temporal", "swap", "--swap", "queries=none", "skips=false")
    code, _, err = run("convert", modelscope_folder, tmp_path / "phase_one", *words)
    assert code == 0, err
    assert json.loads((tmp_path / "phase_one/unet/config.json").read_text())["swap"]["queries"] == "none"
    assert {key.split(".")[1] for key in load_file(tmp_path / "phase_one" / WEIGHTS) if key.startswith("temporal")} == {
        "convolutions",
        "attentions",
        "fusions",
    }
    words = ("--temporal", "swap", "--swap", "queries=temporal", "heads=1")
    code, _, err = run("convert", tmp_path / "phase_one", tmp_path / "phase_two", *words)
    assert code == 0, err
    options = json.loads((tmp_path / "phase_two/unet/config.json").read_text())["swap"]
    assert (options["queries"], options["heads"], options["skips"]) == ("temporal", 1, False)


def test_the_image_model_within_it(modelscope_folder, tmp_path, run):
    code, out, err = run("convert", modelscope_folder, tmp_path / "made", "--temporal", "none", "--json")
    assert code == 0, err
    [(reason, keys)] = json.loads(out)["parts"][0]["left_out"].items()
    assert "temporal mechanism 'swap'" in reason
    assert all("temp_" in key or key.startswith("transformer_in.") for key in keys)


@pytest.mark.parametrize(
    "key",
    [
        "transformer_in.proj_in.weight",
        "down_blocks.1.temp_convs.0.conv2.3.weight",
        "mid_block.temp_attentions.0.norm.bias",
    ],
)
def test_a_missing_tensor_over_time_is_told_by_its_own_name(modelscope_folder, tmp_path, run, key):
    source = shutil.copytree(modelscope_folder, tmp_path / "source")
    tensors = {name: value.clone() for name, value in load_file(source / WEIGHTS).items()}
    del tensors[key]
    save_file(tensors, source / WEIGHTS)
    code, _, err = run("convert", source, tmp_path / "made", "--temporal", "swap")
    assert (code, err.count("\n")) == (2, 1)
    assert f"lacks the tensor {key!r}" in err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--temporal", "swap", "--swap", "querys=none"), "Did you mean 'queries'"),
        (("--temporal", "swap", "--swap", "heads=3"), "swap.heads: 3 heads do not divide the 16 channels"),
        (("--temporal", "swap", "--swap", "window=[8,8,-1]"), "window"),
        (("--temporal", "shift", "--swap", "heads=2"), "Say --temporal swap"),
        (("--temporal", "swap", "--swap", "heads"), "key.subkey=value"),
    ],
)
def test_wrong_options(modelscope_folder, tmp_path, run, words, message):
    code, _, err = run("convert", modelscope_folder, tmp_path / "made", *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
