import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from timeloom import TextToVideoPipeline, cli, recipes
from timeloom.adapters import ADAPTER_FILE, apply_adapter, read_adapter
from timeloom.data import read_metadata
from timeloom.errors import TimeloomError
from timeloom.evaluate.command import Options
from timeloom.evaluate.digits_command import load
from timeloom.model.families import known_model
from timeloom.model.parts import on_meta
from timeloom.models.unet import VideoUNet
from timeloom.train.engine import Trainer
from timeloom.train.lora import add_lora, save_lora
from timeloom.train.plan import make_plan
from timeloom.train.recipe import LoraOptions, Recipe, load_recipe
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def lora_recipe(tiny_recipe, trained_runs):
    """lora_recipe(output, **options of the LoRA): the tiny video recipe on the tiny image model."""

    def make(output, **options) -> Recipe:
        content = tiny_recipe("video", trained_runs, output).model_dump()
        content["model"]["lora"] = {"rank": 4, "alpha": 8, "dtype": "fp32", **options}
        return Recipe.model_validate(content)

    return make


@pytest.fixture(scope="module")
def trained(lora_recipe, tmp_path_factory) -> Trainer:
    """A LoRA trained for four steps."""
    recipe = lora_recipe(tmp_path_factory.mktemp("lora") / "run")
    trainer = Trainer(recipe, build_task(recipe, CPU), CPU)
    trainer.run()
    return trainer


@pytest.fixture()
def adapter(trained) -> Path:
    return trained.folder / "adapter"


def clip():
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 4, 8, 8, generator=random), 400, torch.randn(2, 5, 16, generator=random)


@torch.no_grad()
def predicted(unet):
    return unet.eval()(*clip()).sample


def test_nothing_but_the_lora_learns_and_an_adapter_is_left(trained, adapter, trained_runs):
    learnt = {name for name, parameter in trained.network.named_parameters() if parameter.requires_grad}
    assert learnt and all(".lora_" in name for name in learnt)
    before = load_file(trained_runs / "image/model" / UNET)
    after = {key.replace(".base_layer", ""): value for key, value in trained.network.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not (trained.folder / "model").exists()
    assert [path.name for path in adapter.iterdir()] == [ADAPTER_FILE]
    with safe_open(adapter / ADAPTER_FILE, framework="pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    assert keys == {f"unet.{name.replace('.default', '')}" for name in learnt}
    assert any(".resnets.0.conv1.lora_A.weight" in key for key in keys)
    assert json.loads(metadata["lora_adapter_metadata"])["unet.r"] == 4
    use = read_adapter(adapter).use
    assert (use.temporal, use.num_frames, use.fps, use.height, use.family["in_channels"]) == ("shift", 4, 2, 64, 4)


def test_at_first_it_changes_nothing(lora_recipe, trained_runs, tmp_path):
    task = build_task(lora_recipe(tmp_path), CPU)
    plain = VideoUNet.from_pretrained(trained_runs / "image/model", subfolder="unet", temporal="shift")
    assert torch.equal(predicted(task.network), predicted(plain))


def test_stopping_and_going_on_gives_the_same_bits(lora_recipe, adapter, stop_after, tmp_path):
    recipe = lora_recipe(tmp_path / "stopped")
    stop_after(12, recipe)
    Trainer(recipe, build_task(recipe, CPU), CPU).run()
    again = read_adapter(tmp_path / "stopped/adapter")
    whole = read_adapter(adapter)
    assert again.use == whole.use and again.lora_scale == whole.lora_scale == 2
    assert again.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(again.tensors[key], value) for key, value in whole.tensors.items())
    assert again.file.read_bytes() == whole.file.read_bytes()


def test_the_adapter_makes_of_the_image_model_what_was_trained(trained, adapter, trained_runs):
    with trained.average.applied():
        expected = predicted(trained.network)
    pipe = TextToVideoPipeline.from_pretrained(trained_runs / "image/model", adapter=adapter)
    assert (pipe.unet.config.temporal, pipe.config.num_frames, pipe.config.fps) == ("shift", 4, 2)
    torch.testing.assert_close(predicted(pipe.unet), expected, rtol=1e-4, atol=1e-5)
    still = TextToVideoPipeline.from_pretrained(trained_runs / "image/model", adapter=adapter, adapter_scale=0.0)
    plain = VideoUNet.from_pretrained(trained_runs / "image/model", subfolder="unet", temporal="shift")
    assert torch.equal(predicted(still.unet), predicted(plain))
    assert (predicted(plain) - expected).abs().max() > 100 * (predicted(pipe.unet) - expected).abs().max()


@pytest.fixture()
def half(adapter, lora_recipe, tmp_path) -> Path:
    """The same run, told afterwards to store its adapter as it does by default."""
    folder = shutil.copytree(adapter.parent, tmp_path / "half")
    recipe = lora_recipe(folder, dtype="fp16")
    Trainer(recipe, build_task(recipe, CPU), CPU).run()
    return folder / "adapter"


def test_half_precision_takes_half_the_bytes_and_changes_little(half, adapter, trained_runs, tiny_recipe):
    assert LoraOptions().dtype == "fp16"
    stored, exact = (load_file(folder / ADAPTER_FILE) for folder in (half, adapter))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(torch.equal(stored[key], tensor.half()) for key, tensor in exact.items())
    files = sorted((half.parent / "checkpoints").rglob("*.safetensors"))
    kept = {name: tensor for file in files for name, tensor in load_file(file).items() if ".lora_" in name}
    assert kept and {tensor.dtype for tensor in kept.values()} == {torch.float32}
    image = trained_runs / "image/model"
    rounded, whole, none = (
        predicted(TextToVideoPipeline.from_pretrained(image, adapter=folder, adapter_scale=scale).unet)
        for folder, scale in ((half, 1.0), (adapter, 1.0), (adapter, 0.0))
    )
    assert (rounded - whole).abs().max() < 2e-3 * (whole - none).abs().max()


def test_what_half_precision_cannot_hold_is_refused(trained, adapter, tmp_path):
    parameter = next(value for name, value in trained.network.named_parameters() if ".lora_B." in name)
    before = parameter.detach().clone()
    try:
        parameter.data.fill_(1e6)
        with pytest.raises(TimeloomError, match=r"lora_B.*fp16 cannot hold.*dtype=fp32"):
            save_lora(trained.network, tmp_path, read_adapter(adapter).use)
    finally:
        parameter.data.copy_(before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", ["adapter", "half"])
def test_diffusers_own_pipeline_loads_it(numbers, trained_runs, request):
    """Without the shift, every frame on its own: the same network."""
    adapter = request.getfixturevalue(numbers)
    folder = trained_runs / "image/model"
    pipe = TextToVideoPipeline.from_pretrained(folder)
    parts = {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer")}
    image = VideoUNet.from_pretrained(folder, subfolder="unet", temporal="none")
    theirs = StableDiffusionPipeline(
        **parts,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    latents, timestep, text = clip()
    frames = (latents.flatten(0, 1), timestep, text.repeat_interleave(4, dim=0))
    with torch.no_grad():
        before = theirs.unet(*frames).sample
        theirs.load_lora_weights(adapter)
        after = theirs.unet(*frames).sample
    apply_adapter(image, read_adapter(adapter))
    ours = predicted(image).flatten(0, 1)
    torch.testing.assert_close(ours, after, rtol=1e-4, atol=1e-5)
    assert (after - before).abs().max() > 100 * (ours - after).abs().max()


def test_merged_it_is_the_adapted_model(adapter, trained_runs, tmp_path, capsys):
    image, made = str(trained_runs / "image/model"), tmp_path / "made"
    assert cli.main(["model", "merge", image, str(adapter), str(made), "--scale", "0.5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["temporal"], report["scale"]) == ("shift", 0.5)
    assert report["changed"] == len(load_file(adapter / ADAPTER_FILE)) / 2
    adapted = TextToVideoPipeline.from_pretrained(image, adapter=adapter, adapter_scale=0.5)
    merged = TextToVideoPipeline.from_pretrained(made)
    for name in ("unet", "vae", "text_encoder"):
        one, other = (pipe.components[name].state_dict() for pipe in (adapted, merged))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert merged.unet.config.temporal == "shift"
    defaults = ("num_frames", "fps", "height", "width", "num_inference_steps", "guidance_scale", "sampler")
    assert all(adapted.config[name] == merged.config[name] for name in defaults)


def test_generate_says_which_adapter_made_a_clip(adapter, trained_runs, tmp_path):
    words = ["--model", str(trained_runs / "image/model"), "--adapter", str(adapter), "--adapter-scale", "0.75"]
    output = tmp_path / "clip.mp4"
    assert cli.main(["generate", "a red seven", *words, "--output", str(output), "--steps", "2", "--quiet"]) == 0
    metadata = read_metadata(output)
    assert (metadata["adapter"], metadata["adapter_scale"], metadata["num_frames"]) == (str(adapter), "0.75", "4")


def test_an_evaluation_depends_on_the_adapter_and_its_scale(adapter, trained_runs):
    model = str(trained_runs / "image/model")
    options = [Options(model=model, device="cpu")]
    options += [Options(model=model, adapter=adapter, adapter_scale=scale, device="cpu") for scale in (0.5, 1.0)]
    protocols = [load(one)[1] for one in options]
    assert len({protocol.weights_sha256 for protocol in protocols}) == 3
    assert [protocol.num_frames for protocol in protocols] == [1, 4, 4]


def test_a_model_that_predicts_something_else_is_refused(adapter, trained_runs, tmp_path):
    folder = shutil.copytree(trained_runs / "image/model", tmp_path / "model")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    with pytest.raises(TimeloomError, match="another family"):
        TextToVideoPipeline.from_pretrained(folder, adapter=adapter)


def test_a_plan_counts_the_lora(lora_recipe, trained, tmp_path):
    plan, _ = make_plan(lora_recipe(tmp_path))
    assert plan.trained == sum(p.numel() for p in trained.network.parameters() if p.requires_grad)
    assert plan.trained < sum(p.numel() for p in trained.network.parameters()) / 2


@pytest.mark.parametrize("name", ["sd15", "sd21", "ldm-text2img-large"])
def test_the_page_tells_the_size_of_an_adapter(name, project):
    """docs/train.md: a row for each rank, a column for each model; MB in fp16, by default on all layers."""
    rows = re.findall(r"^\|(.+)\|$", (project / "docs/train.md").read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip(" `") for cell in row.split("|")] for row in rows]
    [start] = [place for place, row in enumerate(cells) if row[0] == "rank"]
    column = cells[start].index(name)
    told = {int(row[0]): float(row[column]) for row in cells[start + 2 : start + 7]}
    unet = on_meta(known_model(name).unet)
    add_lora(unet, LoraOptions(rank=1))
    numbers = sum(value.numel() for name, value in unet.named_parameters() if ".lora_" in name)
    assert told == {rank: round(2 * rank * numbers / 1e6, 1) for rank in (4, 8, 16, 32, 64)}


def test_chosen_layers(lora_recipe, tmp_path):
    network = build_task(lora_recipe(tmp_path, target_modules=["attn2.to_k", "to_out.0"]), CPU).network
    layers = {name.partition(".lora_")[0] for name, _ in network.named_parameters() if ".lora_" in name}
    assert layers and all(name.endswith(("attn2.to_k", "to_out.0")) for name in layers)


@pytest.mark.parametrize("target", ["convl", "norm1", "resnets.0"])
def test_a_name_that_is_no_layer_is_refused(lora_recipe, tmp_path, target):
    with pytest.raises(TimeloomError, match=rf"target_modules '{target}'.*conv1"):
        build_task(lora_recipe(tmp_path, target_modules=["conv1", target]), CPU)


def test_without_peft_the_error_says_how_to_get_it(lora_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TimeloomError, match=r"timeloom\[lora\]"):
        build_task(lora_recipe(tmp_path), CPU)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["model.lora={rnak: 4}"], "Did you mean 'rank'"),
        (["model.lora={rank: 0}"], r"model\.lora\.rank"),
        (["model.lora={}", "model.trainable=['*.attn1.*']"], "leave trainable out"),
        (["model.lora={}", "model.temporal=attention"], "tensors of its own"),
        (["model.lora={}", "model.unet={}"], "give its folder"),
        (["model.lora={}", "task=autoencoder"], "only a U-Net"),
    ],
)
def test_impossible_recipes(changes, complaint):
    with pytest.raises(TimeloomError, match=complaint):
        load_recipe(recipes.find("digits/video_shift"), changes)
