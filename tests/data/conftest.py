"""Synthetic clips, and a cache folder of the test's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from timeloom.data.write import write_image, write_video

settings.register_profile("unhurried", deadline=None, max_examples=50)
settings.load_profile("unhurried")

MakeVideo = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TIMELOOM_CACHE", str(folder))
    return folder


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """make_video(name, num_frames=8, height=16, width=16, fps=8): frame i is grey, 8·i bright; PNGs are one frame."""

    def make(name: str, num_frames: int = 8, height: int = 16, width: int = 16, fps: float = 8) -> Path:
        levels = 8 * np.arange(num_frames, dtype=np.uint8)
        frames = np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3))
        path = tmp_path / name
        if path.suffix == ".png":
            write_image(path, frames[0] + 100)
        else:
            write_video(path.with_suffix(".mp4"), np.ascontiguousarray(frames), fps=fps)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".mp4").rename(path)
        return path

    return make
