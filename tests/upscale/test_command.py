import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from timeloom.cli import main
from timeloom.data import read_video, write_video
from timeloom.models.rcan import RCAN
from timeloom.upscaler import Upscaler


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    Upscaler(RCAN(num_groups=1, num_blocks=1, width=4, reduction=2, scale=4)).save_pretrained(folder)
    return str(folder)


def fails(capsys, *words: object) -> str:
    assert main(["upscale", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_video(model: str, tmp_path: Path, capsys) -> None:
    write_video(tmp_path / "in.mp4", np.full((3, 16, 16, 3), 90, np.uint8), fps=8)
    words = ["upscale", str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), "--model", model, "--json"]
    assert main([*words, "--precision", "bf16", "--scale", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["width"], told["height"], told["frames"], told["fps"], told["sound"]) == (64, 64, 3, 8, "none")
    assert read_video(tmp_path / "out.mp4").shape == (3, 64, 64, 3)
    assert "exists" in fails(capsys, *words[1:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_pictures_keep_gray_and_transparency(mode: str, model: str, tmp_path: Path, capsys) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.linspace(0, 65535, 35).reshape(5, 7).astype(np.uint16))
    else:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8))
        picture = picture.convert("RGB" if mode == "P" else mode).convert(mode)
    picture.save(tmp_path / "in.png")
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--model", model]) == 0
    made = Image.open(tmp_path / "out.png")
    wanted = {"RGBA": "RGBA", "LA": "LA", "L": "L", "1": "L", "I;16": "L"}.get(mode, "RGB")
    assert made.size == (28, 20) and made.mode == wanted
    assert np.asarray(made.convert("L")).max() > 100
    if "A" in mode:
        alpha = picture.getchannel("A").resize((28, 20), Image.Resampling.BICUBIC)
        assert np.array_equal(np.asarray(made.getchannel("A")), np.asarray(alpha))


def test_a_turned_photo_comes_out_upright(model: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (8, 4), (200, 10, 10)).save(tmp_path / "in.jpg", exif=exif)
    assert main(["upscale", str(tmp_path / "in.jpg"), str(tmp_path / "out.webp"), "--model", model]) == 0
    assert Image.open(tmp_path / "out.webp").size == (16, 32)


def test_a_colour_profile_comes_along(model: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (8, 4), (200, 10, 10)).save(tmp_path / "in.png", icc_profile=profile)
    for name in ("out.png", "out.webp"):
        assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / name), "--model", model]) == 0
        assert Image.open(tmp_path / name).info["icc_profile"] == profile


def test_bad_input_is_one_sentence(model: str, tmp_path: Path, capsys) -> None:
    clip, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(clip, np.full((3, 16, 16, 3), 90, np.uint8), fps=8)
    (tmp_path / "same.mp4").symlink_to(clip)
    (tmp_path / "text.mp4").write_text("no video")
    before = clip.read_bytes()
    assert "the source itself" in fails(capsys, clip, clip, "--overwrite")
    assert "the source itself" in fails(capsys, clip, tmp_path / "same.mp4", "--overwrite")
    assert "no such file" in fails(capsys, tmp_path / "none.mp4", out)
    assert "suffix" in fails(capsys, clip, tmp_path / "out.avi")
    assert "text.mp4" in fails(capsys, tmp_path / "text.mp4", out, "--model", model)
    assert "becomes an .mp4" in fails(capsys, clip, tmp_path / "out.png", "--model", model)
    assert "4 times larger, not 2 times" in fails(capsys, clip, out, "--model", model, "--scale", 2)
    assert "not a model that makes frames larger" in fails(capsys, clip, out, "--model", "digits-shift")
    assert "Did you mean 'digits-upscaler'" in fails(capsys, clip, out, "--model", "digits-upscalr")
    assert "--tile must be at least 1" in fails(capsys, clip, out, "--tile", 0)
    write_video(tmp_path / "moves.webp", np.full((2, 4, 4, 3), 90, np.uint8), fps=8)
    Image.new("L", (4100, 1)).save(tmp_path / "wide.png")
    assert "at most 16383 pixels" in fails(capsys, tmp_path / "wide.png", tmp_path / "out.webp", "--model", model)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "shares.tif")
    assert "shades of gray" in fails(capsys, tmp_path / "shares.tif", tmp_path / "out.png", "--model", model)
    assert "is a folder" in fails(capsys, tmp_path, out)
    assert "moves" in fails(capsys, tmp_path / "moves.webp", tmp_path / "out.png", "--model", model)
    assert clip.read_bytes() == before and not out.exists()


def test_want_of_memory_is_one_sentence(model: str, tmp_path: Path, capsys, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    Image.new("RGB", (8, 4)).save(tmp_path / "in.png")
    monkeypatch.setattr(Upscaler, "enlarge", full)
    assert "Not enough memory for frames as large" in fails(
        capsys, tmp_path / "in.png", tmp_path / "out.png", "--model", model
    )
    assert not (tmp_path / "out.png").exists()
