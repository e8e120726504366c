"""The paper's recipes: planned at full size on the meta device, trained for two steps at debug size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from timeloom import recipes
from timeloom.data import write_video
from timeloom.errors import TimeloomError
from timeloom.model.families import known_model
from timeloom.model.parts import on_meta
from timeloom.models.cost import measure
from timeloom.train.command import main
from timeloom.train.plan import META, Machines, describe_plan, make_plan
from timeloom.train.recipe import load_recipe
from timeloom.train.stand_in import with_stand_ins
from timeloom.train.tasks import build_task

PAPER = ("paper/latent_shift_webvid", "paper/latent_vdm_webvid", "paper/latent_shift_ucf101")
FRAMES, LATENT = 16, 32
LAYERS = [(320, 32), (640, 16), (1280, 8)] * 5 + [(1280, 4)]
"""(channels, side of the features) of the 16 transformers of LDM text2img-large: 2 on the way down, 3 up, 1 between."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The plan of each recipe, where none of the model folders exists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        return {name: make_plan(load_recipe(recipes.find(name)))[0] for name in PAPER}


def test_the_full_size_is_the_papers(plans):
    shift, attention, finetuned = (plans[name] for name in PAPER)
    assert round((shift.trained + sum(shift.frozen.values())) / 1e9, 3) == 1.538
    assert round((attention.trained + sum(attention.frozen.values())) / 1e9, 3) == 1.588
    assert shift.stands_in_for == attention.stands_in_for == ("models/ldm-text2img-large",)
    assert finetuned.stands_in_for == ("runs/paper/latent_shift_webvid/model",)
    assert finetuned.flops_per_sample == shift.flops_per_sample


def test_operations_and_bytes_come_out_by_hand_too(plans):
    shift, attention = plans[PAPER[0]], plans[PAPER[1]]
    # q, k, v, out without bias but for out's, and a layer norm
    assert attention.trained - shift.trained == sum(4 * c**2 + 3 * c for c, _ in LAYERS)
    # 2 operations x 4 C² x pixels of all frames, thrice: forward, and backward to inputs and to weights
    linear = 3 * sum(8 * c**2 * FRAMES * side**2 for c, side in LAYERS)
    # each of two products 2 F² C at every pixel; in the backward pass five
    products = 7 * sum(2 * FRAMES**2 * c * side**2 for c, side in LAYERS)
    assert attention.flops_per_sample - shift.flops_per_sample == linear + products
    assert shift.latent_bytes == FRAMES * 4 * LATENT**2 * 2
    assert shift.text_bytes == 77 * 1280 * 2
    assert shift.frame_bytes == FRAMES * (8 * LATENT) ** 2 * 3
    assert shift.checkpoint_bytes == 4 * 4 * shift.trained
    assert shift.model_bytes == 4 * (shift.trained + sum(shift.frozen.values()))


def test_a_plan_is_the_u_net_of_model_info_and_the_encoding(plans):
    unet = on_meta(known_model("ldm-text2img-large").unet, temporal="shift").train()
    latents, text = torch.empty(1, FRAMES, 4, LATENT, LATENT, device="meta"), torch.empty(1, 77, 1280, device="meta")
    training = measure(unet, lambda: unet(latents, 500, text).sample, backward=True)
    plan = plans[PAPER[0]]
    assert plan.flops_per_sample - plan.encoding_flops == training.flops


def test_hours_money_and_storage_follow_from_the_plan(tiny_recipe, trained_runs):
    recipe = tiny_recipe("video", trained_runs)
    plan, _ = make_plan(recipe)
    machines = Machines(devices=32, tflops=100.0, mfu=0.5, price=3.0)
    told = describe_plan(recipe, plan, machines, clips=10_000_000)
    assert told["storage"]["latents_and_text"] == 10_000_000 * (4 * plan.latent_bytes + plan.text_bytes)
    assert told["time"]["device_hours"] == pytest.approx(32 * told["time"]["hours"])
    assert told["time"]["device_hours"] * 3600 * 50e12 == pytest.approx(told["flops"]["total"])
    assert told["money"]["total"] == pytest.approx(3 * told["time"]["device_hours"])
    assert told["money"]["per_sample"] * told["samples"]["total"] == pytest.approx(told["money"]["total"])
    assert told["time"]["samples_per_second"] * told["time"]["device_seconds_per_sample"] == pytest.approx(32)
    assert told["memory"]["samples_at_once"] == 1  # 4 samples on 32 devices
    assert 0 < told["flops"]["encoding_per_sample"] < told["flops"]["per_sample"]
    at_most = describe_plan(recipe, plan, None, clips=None)
    assert at_most["storage"]["latents_and_text"] == recipe.schedule.total_samples * (
        4 * plan.latent_bytes + plan.text_bytes
    )
    assert "time" not in at_most and "money" not in at_most


def test_what_is_kept_is_what_the_networks_make(tiny_recipe, trained_runs):
    plans = {task: make_plan(tiny_recipe(task, trained_runs))[0] for task in ("autoencoder", "image", "video")}
    assert plans["video"].latent_bytes == 4 * plans["image"].latent_bytes == 4 * (4 * 8 * 8) * 2
    assert plans["video"].text_bytes == plans["image"].text_bytes == 16 * 16 * 2
    assert plans["autoencoder"].latent_bytes == plans["autoencoder"].encoding_flops == 0


@pytest.mark.parametrize("family", ["sd15", "ldm-text2img-large"])
def test_stand_ins_are_the_known_model(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(recipes.find(PAPER[0]), [f"model.family={family}"])
    planned, missing = with_stand_ins(recipe, tmp_path / "model")
    assert missing == ["models/ldm-text2img-large"]
    task, known = build_task(planned, META), known_model(family)
    networks = {"unet": task.network, **task.frozen()}
    for part in known.parts:
        expected = {key: tensor.shape for key, tensor in on_meta(part).state_dict().items()}
        assert {key: tensor.shape for key, tensor in networks[part.name].state_dict().items()} == expected
    assert task.schedule.config.beta_end == 0.012
    assert task.encoder.text(["a clip"]).shape == (1, 77, networks["unet"].config.cross_attention_dim)


def test_folders_that_exist_need_no_stand_in(tiny_recipe, trained_runs, tmp_path):
    recipe = tiny_recipe("video", trained_runs)
    assert with_stand_ins(recipe, tmp_path / "model") == (recipe, [])
    assert not (tmp_path / "model").exists()


def test_a_missing_folder_without_a_family_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(recipes.find(PAPER[0]), ["model.family=null"])
    with pytest.raises(TimeloomError, match=r"no model folder models/ldm-text2img-large.*model\.family: sd15"):
        with_stand_ins(recipe, tmp_path / "model")
    with pytest.raises(TimeloomError, match="Did you mean 'sd15'"):
        load_recipe(recipes.find(PAPER[0]), ["model.family=sd1.5"])


def test_the_dry_run_as_json(tiny_recipe, trained_runs, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tiny_recipe("video", trained_runs, tmp_path / "run").model_dump(mode="json")))
    words = ["--dry-run", "--json", "--devices", "2", "--price", "1.5", "--clips", "10_000_000"]
    assert main([str(path), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"]["clips"] == 10_000_000 and told["time"]["devices"] == 2 and told["money"]["total"] > 0
    assert told["recipe"]["model"]["temporal"] == "shift" and told["stands_in_for"] == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--dry-run", "--price", "2"], "--price needs --devices"),
        (["--dry-run", "--devices", "2", "--price", "-1"], "--price must be"),
        (["--dry-run", "--clips", "0"], "--clips must be at least 1"),
        (["--clips", "10"], "--clips is for planning"),
        (["--json"], "--json is for planning"),
        (["--devices", "8"], "--devices is for planning"),
    ],
)
def test_wrong_questions_are_refused(words, complaint):
    with pytest.raises(TimeloomError, match=complaint):
        main(["digits/image", *words])


def write_clip(path: Path, seed: int, num_frames: int = 20) -> None:
    """A clip of a moving bright bar, 8 frames a second."""
    frames = np.full((num_frames, 72, 96, 3), 30 * (seed % 5), np.uint8)
    for i, frame in enumerate(frames):
        frame[:, (5 * i + 9 * seed) % 90 :][:, :6] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path.with_suffix(".mp4"), frames, fps=8)
    path.with_suffix(".mp4").rename(path)


def write_webvid(folder: Path) -> None:
    """A CSV of six clips and their files, where the recipes look for them."""
    lines = ["videoid,name,page_idx,page_dir,duration,contentUrl"]
    for i in range(6):
        lines.append(f'{i:05d},"Bar {i}, moving right.",0,000_050,PT00H00M02S,')
        write_clip(folder / f"webvid/videos/000_050/{i:05d}.mp4", i)
    (folder / "webvid/train.csv").write_text("\n".join(lines) + "\n")


def write_ucf101(folder: Path) -> None:
    """Two classes of three groups; one clip is shorter than the window."""
    lists = {"trainlist01.txt": "", "testlist01.txt": ""}
    for i, action in enumerate(("Fencing", "PlayingGuitar")):
        for group in range(3):
            file = f"{action}/v_{action}_g{group:02d}_c01.avi"
            lists["testlist01.txt" if group == 2 else "trainlist01.txt"] += f"{file} {i + 1}\r\n"
            write_clip(folder / "ucf101/videos" / file, 3 * i + group, num_frames=9 if group == 0 else 20)
    (folder / "ucf101/lists").mkdir()
    (folder / "ucf101/lists/classInd.txt").write_text("1 Fencing\r\n2 PlayingGuitar\r\n")
    for name, text in lists.items():
        (folder / "ucf101/lists" / name).write_text(text)


@pytest.mark.slow
def test_the_papers_recipes_run_for_two_steps_one_after_the_other(trained_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "cache"))
    write_webvid(tmp_path)
    write_ucf101(tmp_path)
    debug = ["data.height=64", "data.width=64", "data.validation_clips=2", "preview.num_inference_steps=2", "workers=1"]
    debug += ["schedule.batch_size=2", "schedule.total_samples=4", "schedule.log_every=2"]
    image_model = [f"model.{part}={trained_runs / 'image/model'}" for part in ("text_encoder", "vae", "unet")]
    for name in PAPER:
        start = [] if name.endswith("ucf101") else image_model  # UCF-101 goes on from WebVid's run
        assert main([name, "--device", "cpu", "--set", *debug, *start]) == 0
        run = tmp_path / "runs" / name
        steps = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
        assert [step["samples"] for step in steps if "loss" in step] == [2, 4]
        assert json.loads((run / "model/unet/config.json").read_text())["temporal"] == (
            "attention" if "vdm" in name else "shift"
        )
    printed = capsys.readouterr().out
    assert "webvid webvid/train.csv: 6 found, 6 used" in printed
    assert "ucf-101 ucf101/lists: 6 found, 6 used" in printed


def test_videofactorys_phases_are_one_run_but_for_swap_attention():
    first, second = (
        load_recipe(recipes.find(f"paper/videofactory_hdvg_webvid{name}")).model_dump(mode="json")
        for name in ("_add", "")
    )
    assert {key for key in first if first[key] != second[key]} == {"output", "seed", "model"}
    assert (first["model"]["swap"]["queries"], second["model"]["swap"]["queries"]) == ("none", "spatial_first")
    assert second["model"]["unet"] == f"{first['output']}/model"
    assert (second["data"]["height"], second["data"]["width"]) == (192, 344)
    assert [source["source"] for source in second["data"]["sources"]] == ["hd-vg-130m", "webvid"]
