import json
import os
import pickle
import re

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from timeloom.errors import TimeloomError
from timeloom.model.original_layout import clip_origin, open_clip_origin, unet_origin, vae_origin
from timeloom.models.unet import VideoUNet
from timeloom.weight_files import read_weights

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
FIRST_CONV = f"{UNET}input_blocks.0.0.weight"


def load_parts(folder):
    return {
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet"),
        "vae": AutoencoderKL.from_pretrained(folder / "vae"),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
    }


def to_original(folder, second):
    """The tensors of a diffusers folder in the original layout, with what such files have beside them."""
    parts = load_parts(folder)
    tensors = {}
    for key, value in parts["unet"].state_dict().items():
        tensors[UNET + unet_origin(key, parts["unet"].config).key] = value
    for key, value in parts["vae"].state_dict().items():
        origin = vae_origin(key, parts["vae"].config).key
        is_convolution = ".attn_1." in origin and value.ndim == 2
        tensors[VAE + origin] = value[..., None, None] if is_convolution else value
    thirds = {}
    for key, value in parts["text_encoder"].state_dict().items():
        origin = open_clip_origin(key, {}) if second else clip_origin(key, {})
        if origin.third is None:
            tensors[(OPEN_CLIP if second else CLIP) + origin.key] = value
        else:
            thirds.setdefault(origin.key, {})[origin.third] = value
    for key, values in thirds.items():
        tensors[OPEN_CLIP + key] = torch.cat([values[i] for i in range(3)])
    if second:  # open_clip has a layer more than Stable Diffusion uses, and what compares with images
        layers = parts["text_encoder"].config.num_hidden_layers
        last, unused = (f"{OPEN_CLIP}transformer.resblocks.{i}." for i in (layers - 1, layers))
        tensors |= {key.replace(last, unused): value for key, value in tensors.items() if key.startswith(last)}
        tensors[f"{OPEN_CLIP}text_projection"] = torch.eye(128)
        tensors[f"{OPEN_CLIP}logit_scale"] = torch.tensor(4.6)
    else:
        tensors[f"{CLIP}text_model.embeddings.position_ids"] = torch.arange(16)[None]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    tensors |= {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0), "model_ema.decay": torch.tensor(0.9999)}
    tensors["model_ema.diffusion_modelinput_blocks00weight"] = tensors[FIRST_CONV]
    return {key: value.clone().contiguous() for key, value in tensors.items()}


@pytest.fixture(scope="module")
def sd1_tensors(sd1_folder):
    return to_original(sd1_folder, second=False)


def write(path, tensors):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save({"state_dict": tensors}, path)
    return path


def options(folder, second=False):
    prediction = ["--prediction-type", "v_prediction"] if second else []
    return ["--tokenizer", folder, *prediction]


@pytest.mark.parametrize("second", [False, True], ids=["1.x", "2.x"])
def test_every_tensor_comes_back(sd1_folder, sd2_folder, tmp_path, run, second):
    source = sd2_folder if second else sd1_folder
    tensors = to_original(source, second)
    file, made = write(tmp_path / "model.safetensors", tensors), tmp_path / "made"
    code, out, err = run("convert", file, made, "--temporal", "shift", "--json", *options(source, second))
    assert code == 0, err
    unet, info = VideoUNet.from_pretrained(made, subfolder="unet", output_loading_info=True)
    assert not any(info.values())
    assert unet.config.temporal == "shift"
    converted = {**load_parts(made), "unet": unet}
    for name, original in load_parts(source).items():
        state = converted[name].state_dict()
        assert state.keys() == original.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in original.state_dict().items())
    for name in ("attention_head_dim", "use_linear_projection", "down_block_types", "up_block_types"):
        expected = load_parts(source)["unet"].config[name]
        assert json.loads(json.dumps(unet.config[name])) == json.loads(json.dumps(expected)), name
    tokens = torch.tensor([[188, 5, 9, 189]])
    texts = [parts["text_encoder"].eval()(tokens)[0] for parts in (converted, load_parts(source))]
    assert torch.equal(*texts)
    scheduler = json.loads((made / "scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == ("v_prediction" if second else "epsilon")
    assert "trained_betas" not in scheduler
    assert (CLIPTokenizer.from_pretrained(made / "tokenizer").pad_token == "!") == second

    report = json.loads(out)
    left_out = [key for part in [*report["parts"], report] for keys in part["left_out"].values() for key in keys]
    layers = 2 if second else 0  # each layer's queries, keys and values are one tensor in the file, twice
    assert sum(part["taken"] for part in report["parts"]) - 4 * layers + len(left_out) == len(tensors)
    assert {"betas", "model_ema.decay"} <= set(left_out)
    assert (f"{OPEN_CLIP}logit_scale" in left_out) == second


@pytest.mark.parametrize("second", [False, True], ids=["1.x", "2.x"])
def test_the_mapping_is_the_one_of_diffusers(sd1_folder, sd2_folder, second):
    folder = sd2_folder if second else sd1_folder
    tensors, parts = to_original(folder, second), load_parts(folder)
    of = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(tensors), dict(parts["unet"].config)),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(tensors), dict(parts["vae"].config)),
        "text_encoder": single_file_utils.convert_open_clip_checkpoint(parts["text_encoder"], dict(tensors))
        if second
        else single_file_utils.convert_ldm_clip_checkpoint(dict(tensors)),
    }
    for name, theirs in of.items():
        theirs = {key.removeprefix("text_model."): value for key, value in theirs.items()}
        for key, value in parts[name].state_dict().items():
            assert torch.equal(theirs[key].reshape(value.shape), value), (name, key)


def test_a_ckpt_of_weights_alone_and_a_schedule_of_its_own(sd1_folder, sd1_tensors, tmp_path, run):
    other = torch.linspace(0.9, 0.01, 1000).double()
    path = tmp_path / "model.ckpt"
    torch.save({"global_step": 7, "state_dict": {**sd1_tensors, "alphas_cumprod": other}}, path)
    code, out, err = run("convert", path, tmp_path / "made", "--json", *options(sd1_folder))
    assert code == 0, err
    assert json.loads(out)["left_out"]["training state beside the weights"] == ["global_step"]
    betas = json.loads((tmp_path / "made/scheduler/scheduler_config.json").read_text())["trained_betas"]
    assert torch.allclose((1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0), other)


def drop(key):
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


def change(**new):
    return lambda tensors: {**tensors, **new}


RESNET = f"{UNET}input_blocks.1.0.in_layers.0.weight"
NAN = torch.full((32,), float("nan"))
WRONG = {
    "missing": (drop(RESNET), RESNET),
    "missing, of which the config is read": (drop(FIRST_CONV), FIRST_CONV),
    "missing autoencoder": (lambda t: {k: v for k, v in t.items() if not k.startswith(VAE)}, f"{VAE}\\S+"),
    "extra": (change(**{f"{UNET}stranger": torch.zeros(1)}), f"{UNET}stranger"),
    "extra, of no part": (change(stranger=torch.zeros(1)), "stranger"),
    "shape": (change(**{RESNET: torch.zeros(7)}), RESNET),
    "NaN": (change(**{RESNET: NAN}), f"{RESNET}' has values that are not finite"),
    "integers": (change(**{RESNET: torch.ones(32, dtype=torch.int8)}), f"{RESNET}' is stored as int8"),
    "inpainting": (change(**{FIRST_CONV: torch.zeros(32, 9, 3, 3)}), "inpainting"),
    "SDXL": (lambda t: {f"conditioner.embedders.0.{k}": v for k, v in t.items()}, "SDXL.*conditioner"),
    "DiT": (lambda t: {f"{UNET}joint_blocks.0.x.weight": torch.zeros(1)}, "diffusion transformer.*joint_blocks"),
    "LoRA": (lambda t: {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(1)}, "LoRA.*lora_up"),
    "diffusers LoRA": (lambda t: {"unet.down_blocks.0.to_q.lora_A.weight": torch.zeros(1)}, "LoRA.*lora_A"),
    "nothing": (lambda t: {}, "nothing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensors_are_named_and_nothing_is_written(sd1_folder, sd1_tensors, tmp_path, run, name):
    spoil, words = WRONG[name]
    file = write(tmp_path / "model.safetensors", spoil(sd1_tensors))
    refuse(run, file, words, tmp_path, options(sd1_folder))


def refuse(run, file, words, folder, more=()):
    """The command says one sentence with the file and these words, fails, and leaves no trace."""
    before = sorted(folder.iterdir())
    code, out, err = run("convert", file, folder / "made", *more)
    assert code == 2
    assert not out
    assert err.count("\n") == 1
    assert str(file) in err
    assert re.search(words, err), err
    assert sorted(folder.iterdir()) == before


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_a_pickle_that_runs_code_is_not_loaded(tmp_path, run, form):
    path, bomb = tmp_path / "evil.ckpt", Bomb(tmp_path / "exploded")
    if form == "zip":
        torch.save({"state_dict": {"a": bomb}}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": bomb}, protocol=2))
    refuse(run, path, "more than weights.*mkdir", tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("size", [0, 10, 5000, -100])
def test_truncated_files(sd1_tensors, tmp_path, run, suffix, size):
    path = write(tmp_path / f"model{suffix}", sd1_tensors)
    path.write_bytes(path.read_bytes()[:size])
    refuse(run, path, "damaged or cut short", tmp_path)


def test_an_old_pickle_cut_anywhere_is_called_damaged(tmp_path):
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    torch.save({"state_dict": {"a": torch.ones(3)}}, whole, _use_new_zipfile_serialization=False)
    content = whole.read_bytes()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        with pytest.raises(TimeloomError, match="damaged or cut short"):
            read_weights(cut)
    assert set(read_weights(whole)[0]) == {"a"}


def test_other_files_and_missing_words(sd1_folder, sd2_folder, tmp_path, run, sd1_tensors):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    refuse(run, text, "weights are a .safetensors file", tmp_path)
    second = write(tmp_path / "second.safetensors", to_original(sd2_folder, second=True))
    refuse(run, second, "--prediction-type", tmp_path, ["--tokenizer", sd2_folder])
    first = write(tmp_path / "first.safetensors", sd1_tensors)
    code, _, err = run("convert", first, tmp_path / "made")
    assert code == 2
    assert "hf download openai/clip-vit-large-patch14" in err
    code, out, _ = run("info", first, "--json", "--frames", 2)
    assert code == 0
    counted = sum(parameter.numel() for part in load_parts(sd1_folder).values() for parameter in part.parameters())
    assert json.loads(out)["parameters"]["total"] == counted
