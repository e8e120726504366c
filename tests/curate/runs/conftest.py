"""Small films with cuts that everybody sees, and a cache folder of the test's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timeloom.data.write import write_video

MakeFilm = Callable[..., Path]
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200))
FRAMES, FPS = 20, 20


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
