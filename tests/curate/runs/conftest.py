"""Small films with cuts that everybody sees, and a cache folder of the test's own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from timeloom.curate.engines import ProcessEngine
from timeloom.curate.pipeline import Layout, curate
from timeloom.curate.recipe import load
from timeloom.curate.stages import Job
from timeloom.data.write import write_video

MakeFilm = Callable[..., Path]
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200))
FRAMES, FPS = 20, 20
OPEN = ("filters={}", "captions.model=null")


def run(tmp_path, *changes, output="out", engine=None, layout=(), videos="videos"):
    """Curate tmp_path/videos, and return (rows of the clips, rows of the ledger)."""
    job = Job((tmp_path / videos).absolute(), tmp_path / output / "work", load("any-size", [*OPEN, *changes]))
    job.work.mkdir(parents=True, exist_ok=True)
    place = Layout(tmp_path / output, *layout)
    curate(job, place, engine or ProcessEngine(0), lambda what, things, total: things)
    return tuple(pq.read_table(place.path(stem, ".parquet")).to_pylist() for stem in ("clips", "ledger"))


def captioned(tmp_path, clips):
    """A file of captions for all clips."""
    path = tmp_path / "clip_captions.jsonl"
    path.write_text(
        "".join(json.dumps({"clip_id": c["clip_id"], "caption": f"clip {c['start_pts']}"}) + "\n" for c in clips)
    )
    return f"captions.file={path}"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def colours() -> tuple[tuple[int, int, int], ...]:
    return COLOURS


@pytest.fixture
def make_film(tmp_path: Path) -> MakeFilm:
    """make_film(name, scenes): scene after scene of one second, each of its colour, with a bar that moves."""

    def make(name: str, scenes: tuple[int, ...] = (0, 1, 2), height: int = 48, width: int = 80) -> Path:
        images = []
        for colour in scenes:
            for step in range(FRAMES):
                image = np.full((height, width, 3), COLOURS[colour % 6], np.uint8)
                image[:, 2 * step : 2 * step + 8] = 255 - 20 * (colour // 6)
                images.append(image)
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "film.mp4", np.stack(images), fps=FPS)
        (tmp_path / "film.mp4").rename(path)
        return path

    return make


@pytest.fixture
def films(make_film, tmp_path):
    make_film("a.mp4", (0, 1, 2))
    make_film("deep/b c.mp4", (3, 4))
    make_film("d.mp4", (5,))
    (tmp_path / "videos/d.txt").write_text("A magenta wall.")
    return tmp_path
