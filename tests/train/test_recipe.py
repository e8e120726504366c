from pathlib import Path

import pytest
import torch
import yaml

from timeloom import recipes
from timeloom.errors import TimeloomError
from timeloom.train.engine import Trainer
from timeloom.train.recipe import Recipe, load_recipe
from timeloom.train.task import SampleRandom, derive_seed
from timeloom.train.tasks import TASKS, build_task

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_recipe_that_opens_with_its_commands(name: str) -> None:
    path = recipes.find(name)
    recipe = load_recipe(path)
    assert recipe.task in TASKS
    head = path.read_text(encoding="utf-8").split("\ntask:")[0]
    assert "timeloom data view" in head and "timeloom train" in head


@pytest.mark.slow
def test_the_digits_recipes_run_for_two_steps_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = ("text_encoder", "autoencoder", "autoencoder_whole", "image", "image_fine")
    videos = ("video_shift", "video_shift_fine", "video_attention", "video_attention_fine")
    styles = ("image_style_a", "image_style_b", "video_adapter")
    for name in (*stages, *videos, *styles, "features"):
        recipe = load_recipe(
            recipes.find(f"digits/{name}"),
            [
                "schedule={total_samples: 4, batch_size: 2, validate_every: 4}",
                "data.validation_clips=2",
                "preview.num_inference_steps=1",
                "preview.prompts=[a red seven moves left]",
                "precision=fp32",  # many times faster where the processor has no bf16
                *(["data.num_frames=4"] if name in videos or name == "video_adapter" else []),
            ],
        )
        Trainer(recipe, build_task(recipe, CPU), CPU).run()
    for video in videos:
        assert (tmp_path / f"runs/digits/{video}/model/model_index.json").is_file()
    assert (tmp_path / "runs/digits/video_adapter/adapter/pytorch_lora_weights.safetensors").is_file()


def test_the_styles_share_nothing_and_the_adapter_sees_the_first() -> None:
    names = ("image_style_a", "image_style_b", "video_adapter")
    first, second, motion = (load_recipe(recipes.find(f"digits/{name}")) for name in names)
    for option in ("colours", "backgrounds"):
        assert first.data.style[option] and not set(first.data.style[option]) & set(second.data.style[option])
    assert motion.data.style == first.data.style
    assert motion.model.unet == f"{first.output}/model"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("data.num_framse=3", "Did you mean 'num_frames'"),
        ("tusk=video", "Did you mean 'task'"),
        ("task=vidoe", "task"),
        ("data.height=60", "data.height"),
        ("data.num_frames=0", "data.num_frames"),
        ("data.num_frames=10000", "data.num_frames"),
        ("schedule.total_samples=-1", "schedule.total_samples"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate"),
        ("data.source=folder", r"data\.path"),
        ("data.num_frames", "key.subkey=value"),
        ("data.path=[a", r"data\.path=\[a: the value is no YAML"),
        ("task.x=1", "not a group"),
        ("loss.crop=128", "cannot be larger"),
        ("model.swap.heads=4", r"swap: .* say temporal: swap"),
    ],
)
def test_a_wrong_option_is_named(change: str, complaint: str) -> None:
    with pytest.raises(TimeloomError, match=complaint):
        load_recipe(recipes.find("digits/video_shift"), [change])


def test_a_discriminator_goes_with_l1() -> None:
    with pytest.raises(TimeloomError, match=r"loss\.pixels: beside a discriminator"):
        load_recipe(recipes.find("digits/upscaler_gan"), ["loss.pixels=psnr"])


def test_an_image_recipe_trains_on_single_frames() -> None:
    with pytest.raises(TimeloomError, match="1 frame"):
        load_recipe(recipes.find("digits/image"), ["data.num_frames=2"])


@pytest.mark.parametrize("content", [b"", b"- a list", b"a: [", b"\xff\xfe"])
def test_a_file_that_is_no_recipe_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(TimeloomError, match=r"broken\.yaml"):
        load_recipe(path)


def test_the_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe(recipes.find("digits/image"))
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(path) == recipe
    assert isinstance(recipe, Recipe)


def test_a_samples_noise_does_not_depend_on_its_batch_mates() -> None:
    together = SampleRandom(5, [10, 11, 12])
    alone = SampleRandom(5, [11])
    assert torch.equal(together.normal((3, 2))[1], alone.normal((3, 2))[0])
    assert together.integers(1000)[1] == alone.integers(1000)[0]
    assert not torch.equal(SampleRandom(6, [11]).normal((3, 2)), SampleRandom(5, [11]).normal((3, 2)))


def test_derived_seeds_differ_and_fit() -> None:
    seeds = {derive_seed(s, n) for s in range(50) for n in range(50)}
    assert len(seeds) == 2500 and max(seeds) < 2**63
