"""Latents and text features are computed once, and training cannot tell whether they were."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timeloom.cli import main
from timeloom.data import write_video
from timeloom.data.span import window_start
from timeloom.errors import TimeloomError
from timeloom.tensor_cache import TensorCache
from timeloom.train.engine import Trainer
from timeloom.train.feed import load
from timeloom.train.recipe import Recipe
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")
CLIPS, WINDOWS, HELD_OUT = 6, 3, 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six captioned clips of four seconds."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(CLIPS):
        frames = rng.integers(0, 256, (16, 4, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        write_video(folder / f"{number}.mp4", frames, fps=4)
        (folder / f"{number}.txt").write_text(f"a red {number % 3} moves left", encoding="utf-8")
    return folder


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe], trained_runs: Path, clips: Path, tmp_path: Path) -> Callable:
    def make(name: str, **data: object) -> Recipe:
        once = {"total_samples": 32, "validate_every": 32, "checkpoint_every": 32}
        tiny = tiny_recipe("video", trained_runs, tmp_path / name, **once)
        own = {"source": "folder", "path": str(clips), "validation_clips": HELD_OUT, "windows": WINDOWS, **data}
        return Recipe.model_validate(
            {**tiny.model_dump(mode="json"), "workers": 0, "data": {**tiny.data.model_dump(mode="json"), **own}}
        )

    return make


def train(recipe: Recipe) -> bytes:
    Trainer(recipe, build_task(recipe, CPU), CPU).run()
    return (Path(recipe.output) / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def command(recipe: Recipe, tmp_path: Path, *more: str) -> list[str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")), encoding="utf-8")  # JSON is YAML
    return ["data", "cache", str(path), "--device", "cpu", *more]


@given(st.text(max_size=20), st.integers(0, 1000), st.integers(1, 9))
def test_each_window_begins_in_its_own_part_of_the_clip(key: str, epoch: int, windows: int) -> None:
    start = window_start(key, epoch, windows)
    assert int(start * windows) == epoch % windows and 0 <= start < 1
    assert start == window_start(key, epoch + windows, windows)


def test_training_cannot_tell_whether_the_cache_was_there(
    recipe: Callable, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = train(recipe("without", cache=False))
    assert not kept(cache)
    assert train(recipe("cold")) == without
    files = kept(cache)
    assert files

    def refuse(*args: object) -> None:
        raise AssertionError("a clip is decoded although its latents are there")

    monkeypatch.setattr("timeloom.data.table._draw", refuse)
    assert train(recipe("warm")) == without
    assert kept(cache) == files


def test_a_damaged_file_is_made_again_in_training(
    recipe: Callable, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(recipe("first"))
    before = {path: path.read_bytes() for path in kept(cache)}
    for path in before:
        path.write_bytes(b"not what it was")
    assert train(recipe("second")) == first
    assert {path: path.read_bytes() for path in kept(cache)} == before
    assert capsys.readouterr().err.count("is damaged. It is made again.") == len(before)


def test_worker_processes_change_nothing(recipe: Callable) -> None:
    alone = train(recipe("alone"))
    assert train(recipe("helped").model_copy(update={"workers": 2})) == alone


def test_a_full_disk_stops_keeping_and_not_training(
    recipe: Callable, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, value: torch.Tensor) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    expected = train(recipe("expected", cache=False))
    monkeypatch.setattr(TensorCache, "put", staticmethod(full))
    assert train(recipe("full")) == expected
    assert capsys.readouterr().err.count("No space left on device; from here on nothing more is kept.") == 1


def test_the_command_encodes_all_that_training_sees(
    recipe: Callable, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(recipe("run"), tmp_path, "--json")
    windows = (CLIPS - HELD_OUT) * WINDOWS + HELD_OUT
    assert main([*line, "--check"]) == 1
    assert json.loads(capsys.readouterr().out)["windows"]["missing"] == windows
    assert main(line) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["windows"] == {"there": 0, "encoded": windows, "missing": 0, "damaged": 0}
    assert report["captions"]["encoded"] == 3 and report["captions"]["there"] == CLIPS - 3
    assert len(kept(cache)) == windows + 3

    files = {path: path.stat().st_mtime_ns for path in kept(cache)}
    train(recipe("run"))
    texts = Path(report["folders"][1])
    new = [path for path in kept(cache) if path not in files]
    assert all(texts in path.parents for path in new) and len(new) <= 1  # the empty caption, if any was dropped
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())


def test_the_command_makes_what_is_missing_or_damaged(
    recipe: Callable, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(recipe("run"), tmp_path, "--json")
    assert main(line) == 0
    before = {path: path.read_bytes() for path in kept(cache)}
    (latents, texts) = json.loads(capsys.readouterr().out)["folders"]
    missing, damaged = sorted(Path(latents).rglob("*.safetensors"))[:2]
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    text = sorted(Path(texts).rglob("*.safetensors"))[0]
    text.write_bytes(b"")
    assert main([*line, "--check"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["windows"]["missing"], report["windows"]["damaged"]) == (2, 1)
    assert report["captions"]["damaged"] >= 1
    assert main(line) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["windows"]["encoded"], report["windows"]["damaged"]) == (2, 1)
    assert {path: path.read_bytes() for path in kept(cache)} == before
    assert main([*line, "--check"]) == 0


def test_processes_share_the_work(
    recipe: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(recipe("run"), tmp_path, "--json")
    monkeypatch.setenv("WORLD_SIZE", "2")
    encoded = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(line) == 0
        encoded.append(json.loads(capsys.readouterr().out)["windows"]["encoded"])
    assert sum(encoded) == (CLIPS - HELD_OUT) * WINDOWS + HELD_OUT and abs(encoded[0] - encoded[1]) <= 1
    monkeypatch.delenv("WORLD_SIZE")
    assert main([*line, "--check"]) == 0


def test_the_command_says_when_there_is_nothing_to_do_or_no_room(
    recipe: Callable,
    tiny_recipe: Callable[..., Recipe],
    trained_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for wrong, said in (
        (tiny_recipe("video", trained_runs, tmp_path / "x"), "digits, which are drawn anew"),
        (tiny_recipe("autoencoder", trained_runs, tmp_path / "x"), "trains on pixels"),
        (recipe("x", windows=None), "nothing is kept"),
    ):
        assert main(command(wrong, tmp_path)) == 2
        assert said in capsys.readouterr().err

    def full(path: Path, value: torch.Tensor) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(TensorCache, "put", staticmethod(full))
    assert main(command(recipe("x"), tmp_path)) == 1
    assert "The disk is full" in capsys.readouterr().err


def test_what_is_kept_already_needs_no_room(
    recipe: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache that was stopped half way, or is whole, on a disk that has little room left."""
    line = command(recipe("run"), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        assert main(line) == 2
        assert "too little" in capsys.readouterr().err
    assert main(line) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert main(line) == 0
    assert "0 encoded now" in capsys.readouterr().out.splitlines()[-4]


def test_another_file_autoencoder_or_precision_is_encoded_anew(recipe: Callable, clips: Path) -> None:
    from timeloom.data import FolderSource, Window
    from timeloom.train.encode import Encoder

    window = Window(4, 2, 64, 64)
    clip = FolderSource(clips)[0]
    first = Encoder(recipe("x"), CPU).latent_cache.path(clip, window, 0.5)
    assert Encoder(recipe("x"), CPU).latent_cache.path(clip, window, 0.5) == first
    other = Encoder(recipe("x").model_copy(update={"precision": "bf16"}), CPU).latent_cache
    paths = {first, other.path(clip, window, 0.5)}
    same = Encoder(recipe("x"), CPU).latent_cache
    paths |= {same.path(clip, window, 0.25), same.path(clip, Window(4, 4, 64, 64), 0.5)}
    stat = (clips / "0.mp4").stat()
    os.utime(clips / "0.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    paths.add(same.path(clip, window, 0.5))
    os.utime(clips / "0.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(paths) == 5


class Deadly(torch.utils.data.Dataset):
    def __getitem__(self, item: int) -> int:
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item


def test_a_killed_worker_ends_in_one_sentence() -> None:
    found = load(Deadly(), range(100), workers=2)
    with pytest.raises(TimeloomError, match="A process that reads clips was killed"):
        list(found)


def test_memory_stays_flat(recipe: Callable, clips: Path) -> None:
    """A thousand batches of what is there take no more memory than the first two hundred."""
    from timeloom.data.order import Order
    from timeloom.data.sources import open_sources
    from timeloom.train.encode import Encoder
    from timeloom.train.feed import Feed

    options = recipe("x")
    encoder = Encoder(options, CPU)
    source, _ = open_sources(options.data, 0)
    feed = Feed(Order(source, options.data.window, 0, 4), 1, windows=WINDOWS, cache=encoder.latent_cache)
    sizes = []
    for numbers, batch in feed([number * 4 + i for i in range(4)] for number in range(1000)):
        encoder.latents(batch)
        encoder.text(batch.captions)
        if numbers[0] in (800, 3996):
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[1] - sizes[0] < 8 << 20
