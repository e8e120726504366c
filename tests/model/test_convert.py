import json
import re
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from timeloom.generate.pipeline import TextToVideoPipeline
from timeloom.model.folder import find_source, find_tokenizer
from timeloom.models.unet import MECHANISMS, VideoUNet

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
needs_attention = pytest.mark.skipif("attention" not in MECHANISMS, reason="no temporal attention in this version")


def edit(path, change):
    """Change a safetensors file: `change` gets its dictionary of tensors."""
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def edit_json(path, **new):
    path.write_text(json.dumps({**json.loads(path.read_text()), **new}))


def same_weights(made, source, names=WEIGHTS):
    for name in names:
        tensors, original = load_file(made / WEIGHTS[name]), load_file(source / WEIGHTS[name])
        assert tensors.keys() == original.keys()
        assert all(torch.equal(tensors[key], value) for key, value in original.items())


def clip():
    random = torch.Generator().manual_seed(0)
    return torch.randn(1, 2, 4, 8, 8, generator=random), 17, torch.randn(1, 5, 64, generator=random)


@pytest.fixture()
def folder(sd1_folder, tmp_path):
    """A copy of the tiny model, to break."""
    return shutil.copytree(sd1_folder, tmp_path / "source")


@pytest.fixture(scope="module")
def shift(sd1_folder, tmp_path_factory):
    """The tiny model, converted once. Do not write to it."""
    from timeloom import cli

    made = tmp_path_factory.mktemp("converted") / "shift"
    assert cli.main(["model", "convert", str(sd1_folder), str(made), "--num-frames", "4", "--fps", "12"]) == 0
    return made


def test_none_is_the_image_network(sd1_folder, tmp_path, run):
    code, _, err = run("convert", sd1_folder, tmp_path / "made", "--temporal", "none")
    assert code == 0, err
    same_weights(tmp_path / "made", sd1_folder)
    video = VideoUNet.from_pretrained(tmp_path / "made", subfolder="unet").eval()
    image, info = UNet2DConditionModel.from_pretrained(tmp_path / "made", subfolder="unet", output_loading_info=True)
    assert not any(info.values())
    latents, timestep, text = clip()
    with torch.no_grad():
        expected = image.eval()(latents[0], timestep, text.expand(2, -1, -1)).sample
        torch.testing.assert_close(video(latents, timestep, text).sample[0], expected)


def test_shift_adds_no_tensor_and_the_pipeline_loads_it(shift, sd1_folder):
    same_weights(shift, sd1_folder)
    pipe = TextToVideoPipeline.from_pretrained(shift)
    assert (pipe.unet.config.temporal, pipe.config.num_frames, pipe.config.fps) == ("shift", 4, 12)
    assert (pipe.config.height, pipe.config.width, pipe.config.sampler) == (16, 16, "ddim")


@needs_attention
def test_attention_is_added_kept_and_left_out_again(sd1_folder, tmp_path, run):
    first, second, third = (tmp_path / name for name in "abc")
    code, out, err = run("convert", sd1_folder, first, "--temporal", "attention", "--json")
    assert code == 0, err
    unet = json.loads(out)["parts"][0]
    assert unet["added"] == unet["initialised_to_zero"] + unet["initialised_at_random"] > 0
    assert unet["initialised_to_zero"] > 0
    assert unet["taken"] == len(load_file(sd1_folder / WEIGHTS["unet"]))
    networks = [VideoUNet.from_pretrained(path, subfolder="unet").eval() for path in (first, sd1_folder)]
    with torch.no_grad():
        video, image = (network(*clip()).sample for network in networks)
    torch.testing.assert_close(video, image)

    code, out, err = run("convert", first, second, "--temporal", "attention", "--json")
    assert (code, json.loads(out)["parts"][0]["added"]) == (0, 0), err
    same_weights(second, first)
    code, out, err = run("convert", second, third, "--temporal", "shift", "--json")
    assert code == 0, err
    [keys] = json.loads(out)["parts"][0]["left_out"].values()
    assert len(keys) == unet["added"]
    same_weights(third, sd1_folder)

    edit(first / WEIGHTS["unet"], lambda tensors: tensors.pop(keys[0]))
    code, _, err = run("convert", first, tmp_path / "d", "--temporal", "attention")
    assert code == 2
    assert repr(keys[0]) in err


def test_folders_of_2022_come_out_as_those_of_today(folder, sd1_folder, tmp_path, run):
    """Old names of the autoencoder's attention, 1x1 convolutions in it, CLIP's prefix, a pickle and shards."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        for key in [key for key in tensors if ".attentions.0." in key]:
            name = key
            for new, former in old.items():
                name = name.replace(f".{new}.", f".{former}.")
            tensors[name] = tensors.pop(key)

    edit(folder / WEIGHTS["vae"], rename)
    text = load_file(folder / WEIGHTS["text_encoder"])
    text = {f"text_model.{key}": value for key, value in text.items()}
    text["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save(text, folder / "text_encoder/pytorch_model.bin")
    (folder / WEIGHTS["text_encoder"]).unlink()
    unet = load_file(folder / WEIGHTS["unet"])
    names, stem = sorted(unet), "diffusion_pytorch_model"
    shards = {f"{stem}-{i}.safetensors": names[i::2] for i in range(2)}
    for file, keys in shards.items():
        save_file({key: unet[key].clone() for key in keys}, folder / "unet" / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (folder / "unet" / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / WEIGHTS["unet"]).unlink()
    edit_json(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])

    code, out, err = run("convert", folder, tmp_path / "made", "--json")
    assert code == 0, err
    same_weights(tmp_path / "made", sd1_folder)
    report = json.loads(out)
    assert list(report["left_out"].values()) == [["safety_checker"]]
    assert list(report["parts"][2]["left_out"].values()) == [["text_model.embeddings.position_ids"]]


def test_dtype_and_variant(folder, tmp_path, run):
    edit(folder / WEIGHTS["unet"], lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    (folder / WEIGHTS["unet"]).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    code, _, err = run("convert", folder, tmp_path / "made")
    assert code == 2
    assert "--variant fp16" in err
    for name in ("vae", "text_encoder"):
        path = folder / WEIGHTS[name]
        path.rename(path.with_suffix(".fp16.safetensors"))
    code, out, err = run("convert", folder, tmp_path / "made", "--variant", "fp16", "--json")
    assert code == 0, err
    assert [part["dtypes"] for part in json.loads(out)["parts"]] == [["float16"], ["float32"], ["float32"]]
    code, out, err = run("convert", tmp_path / "made", tmp_path / "bf16", "--dtype", "bf16", "--json")
    assert code == 0, err
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(tmp_path / "bf16" / WEIGHTS["vae"]).values())

    edit(tmp_path / "made" / WEIGHTS["vae"], lambda tensors: tensors["quant_conv.bias"].fill_(1e6))
    code, _, err = run("convert", tmp_path / "made", tmp_path / "fp16", "--dtype", "fp16")
    assert code == 2
    assert "'quant_conv.bias' has values beyond the range of fp16" in err
    assert not (tmp_path / "fp16").exists()


def test_ldm_becomes_a_folder_that_generates(ldm_folder, tmp_path, run):
    made = tmp_path / "made"
    code, _, err = run("convert", ldm_folder, made, "--temporal", "shift")
    assert code == 0, err
    text, original = (
        load_file(path) for path in (made / WEIGHTS["text_encoder"], ldm_folder / "bert/model.safetensors")
    )
    assert text.keys() == original.keys()
    assert all(torch.equal(text[key], value) for key, value in original.items())
    index = json.loads((made / "model_index.json").read_text())
    assert index["text_encoder"] == ["latent_diffusion", "LDMBertModel"]
    code, _, err = run("info", made, "--json")
    assert code == 0, err
    pipe = TextToVideoPipeline.from_pretrained(made)
    clips = pipe(["a cat", "a dog"], seeds=[0, 0], num_frames=2, height=16, width=16, num_inference_steps=2).frames
    assert clips.shape == (2, 2, 16, 16, 3)
    pipe.save_pretrained(tmp_path / "saved")
    same_weights(tmp_path / "saved", made)
    again = tmp_path / "again"
    assert run("convert", made, again)[0] == 0
    same_weights(again, made)


def test_a_destination_is_replaced_only_when_asked_and_only_a_model(shift, sd1_folder, tmp_path, run):
    made = shutil.copytree(shift, tmp_path / "made")
    code, _, err = run("convert", sd1_folder, made)
    assert code == 2
    assert f"{made} exists" in err
    code, _, err = run("convert", made, made, "--overwrite")
    assert code == 2
    assert "holds the source itself" in err
    assert run("convert", sd1_folder, made, "--temporal", "none", "--overwrite")[0] == 0
    assert json.loads((made / "unet/config.json").read_text())["temporal"] == "none"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    code, _, err = run("convert", sd1_folder, home, "--overwrite")
    assert code == 2
    assert "no model folder" in err
    assert (home / "letter.txt").exists()


def first_tensor(tensors):
    return tensors[min(tensors)].view(-1)


SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32,
}
BROKEN = {
    "NaN": (lambda f: edit(f / WEIGHTS["text_encoder"], lambda t: first_tensor(t)[:1].fill_(float("nan"))), "finite"),
    "missing": (lambda f: edit(f / WEIGHTS["vae"], lambda t: t.pop(min(t))), r"vae/\S+ lacks the tensor '\S+'"),
    "extra": (lambda f: edit(f / WEIGHTS["unet"], lambda t: t.update(odd=torch.ones(1))), "no place for, .* 'odd'"),
    "shape": (lambda f: edit(f / WEIGHTS["vae"], lambda t: t.update({min(t): torch.ones(1, 2, 3)})), r"\(1, 2, 3\)"),
    "cut short": (lambda f: (f / WEIGHTS["unet"]).write_bytes(b"\x09\0\0"), "damaged or cut short"),
    "SDXL": (
        lambda f: edit_json(f / "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"]),
        "text_encoder_2.*another family",
    ),
    "SDXL U-Net": (lambda f: edit_json(f / "unet/config.json", **SDXL), "addition_embed_type"),
    "DiT": (lambda f: edit_json(f / "model_index.json", transformer=["diffusers", "DiT"]), "'transformer'.*family"),
    "other autoencoder": (lambda f: edit_json(f / "model_index.json", vae=["diffusers", "VQModel"]), "VQModel"),
    "other latents": (lambda f: edit_json(f / "vae/config.json", latent_channels=3), r"latent|shape"),
    "no part": (lambda f: shutil.rmtree(f / "vae"), "no folder 'vae'"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer"),
    "no index": (lambda f: (f / "model_index.json").unlink(), r"model_index.json is missing"),
    "LoRA": (lambda f: (f / "model_index.json").rename(f / "adapter_config.json"), "holds a LoRA"),
    "scheduler": (lambda f: edit_json(f / "model_index.json", scheduler=["diffusers", "Clock"]), "'Clock'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_one_sentence_and_nothing_is_written(folder, tmp_path, run, name):
    spoil, words = BROKEN[name]
    spoil(folder)
    code, _, err = run("convert", folder, tmp_path / "made")
    assert code == 2
    assert err.count("\n") == 1
    assert str(folder) in err
    assert re.search(words, err), err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_hub_models_come_from_the_local_cache(sd1_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("models--some--one", "models--openai--clip-vit-large-patch14"):
        snapshot = tmp_path / name / "snapshots" / "1234"
        shutil.copytree(sd1_folder / "tokenizer" if "clip" in name else sd1_folder, snapshot)
        (tmp_path / name / "refs").mkdir()
        (tmp_path / name / "refs/main").write_text("1234")
    for download in (True, False):
        assert find_source("some/one", None, download) == tmp_path / "models--some--one/snapshots/1234"
    assert find_tokenizer(None) == snapshot
    assert find_tokenizer("some/one") == tmp_path / "models--some--one/snapshots/1234/tokenizer"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nobody/nothing"], "hf download nobody/nothing --local-dir"),
        (["digits-shfit"], "Did you mean 'digits-shift'"),
        (["no/such/folder"], "no/such/folder"),
        (["digits-shift", "--temporal", "shfit"], "Did you mean 'shift'"),
        (["digits-shift", "--shift-fraction", "0.7"], "shift_fraction"),
        (["digits-shift", "--fps", "0"], "--fps"),
        (["digits-shift", "--num-frames", "0"], "--num-frames"),
        (["digits-shift", "--tokenizer", "x"], "--tokenizer is for single files"),
    ],
)
def test_wrong_options(tmp_path, run, options, words):
    source, *rest = options
    code, _, err = run("convert", source, tmp_path / "made", *rest)
    assert code == 2
    assert words in err
    assert not list(tmp_path.iterdir())


def test_wrong_verbs(run):
    code, _, err = run("convrt")
    assert code == 2
    assert "Did you mean 'convert'" in err
    assert run()[0] == 2
