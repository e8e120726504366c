import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from timeloom.errors import TimeloomError
from timeloom.generate.pipeline import TextToVideoPipeline

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture()
def folder(tiny_model, tmp_path):
    """A copy of the tiny model, to break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def edit(path, change):
    """Change a safetensors file: `change` gets its dictionary of tensors."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_diffusers_own_class_loads_the_unet(tiny_model):
    _, info = UNet2DConditionModel.from_pretrained(tiny_model, subfolder="unet", output_loading_info=True)
    assert not any(info.values())
    assert json.loads((tiny_model / "model_index.json").read_text())["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_a_plain_stable_diffusion_folder_loads(folder):
    config = json.loads((folder / "unet/config.json").read_text())
    config = {key: value for key, value in config.items() if "shift" not in key and key != "temporal"}
    (folder / "unet/config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    index = json.loads((folder / "model_index.json").read_text())
    parts = {key: value for key, value in index.items() if isinstance(value, list)}
    parts["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    parts["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    plain = {**parts, "_class_name": "StableDiffusionPipeline", "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps(plain))
    pipe = TextToVideoPipeline.from_pretrained(folder)
    assert pipe.unet.config.temporal == "none"
    assert (pipe.config.num_frames, pipe.config.height, pipe.config.sampler) == (16, 16, "ddim")


def test_fp16_files_are_computed_in_fp32(folder):
    edit(folder / UNET, lambda tensors: tensors.update({name: value.half() for name, value in tensors.items()}))
    assert TextToVideoPipeline.from_pretrained(folder).unet.dtype == torch.float32


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(min(tensors)), r"lack.* '\S+'"),
        (lambda tensors: tensors.update(stranger=torch.zeros(1)), "no place for.* 'stranger'"),
        (lambda tensors: tensors.update({min(tensors): torch.zeros(1, 2, 3)}), r"'\S+' has the shape \(1, 2, 3\)"),
        (
            lambda tensors: tensors[min(tensors)].view(-1)[:1].fill_(float("nan")),
            r"'\S+' has values that are not finite",
        ),
    ],
    ids=["missing", "extra", "shape", "nan"],
)
def test_wrong_weights_are_refused_by_name(folder, part, change, message):
    edit(next((folder / part).glob("*.safetensors")), change)
    with pytest.raises(TimeloomError, match=message) as raised:
        TextToVideoPipeline.from_pretrained(folder)
    assert str(folder) in str(raised.value)


def test_pickles_are_refused(folder):
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(TimeloomError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        TextToVideoPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (UNET, None, "unet has no weights"),
        (UNET, b"\x08\0\0\0\0\0\0\0garbage!", "Cannot load the unet"),
        ("model_index.json", None, r"model_index\.json is missing"),
        ("model_index.json", b"{", r"model_index\.json cannot be read as JSON"),
        ("model_index.json", b"{}", "names no unet"),
        ("unet/config.json", b"[]", "must hold a JSON object"),
        ("scheduler/scheduler_config.json", None, r"scheduler_config\.json is missing"),
        ("tokenizer/tokenizer.json", b"{", "Cannot load the tokenizer"),
    ],
)
def test_damaged_files_are_named(folder, path, content, message):
    if content is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(content)
    with pytest.raises(TimeloomError, match=message):
        TextToVideoPipeline.from_pretrained(folder)


def test_a_missing_part_is_named(folder):
    shutil.rmtree(folder / "vae")
    with pytest.raises(TimeloomError, match="no folder 'vae'"):
        TextToVideoPipeline.from_pretrained(folder)


def test_parts_that_do_not_fit_are_refused(tiny_model, pipe):
    pipe.unet.register_to_config(cross_attention_dim=48)
    with pytest.raises(TimeloomError, match="hidden_size 32, and the U-Net takes 48"):
        TextToVideoPipeline.from_pretrained(tiny_model, unet=pipe.unet)


@pytest.mark.parametrize("name", ["digits-shfit", "nobody/no-such-model", "no/such/folder"])
def test_unknown_models(name):
    with pytest.raises(TimeloomError, match=name):
        TextToVideoPipeline.from_pretrained(name)
