"""Real test clips and one judge for all tests of this folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from timeloom.data.clip import Frames, Window
from timeloom.data.digits import DigitsSource, Scene
from timeloom.evaluate.judge import Judge
from timeloom.evaluate.networks import NETWORKS

WINDOW = Window(num_frames=16, fps=8.0, height=64, width=64)


@dataclass(frozen=True)
class RealClips:
    frames: Frames
    scenes: list[Scene]


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="session")
def real() -> RealClips:
    """200 clips of handwriting that the judge's reader was not fitted on."""
    source = DigitsSource("test", combinations="all", complete_captions=True)
    frames = [source.draw_batch(range(i, i + 50), WINDOW, [0.0] * 50)[0] for i in range(0, 200, 50)]
    return RealClips(np.concatenate(frames), [source.scene(i)[0] for i in range(200)])


@pytest.fixture
def stub_networks(monkeypatch, tmp_path):
    """I3D and CLIP are stand-ins without weights, and features are kept in a folder of the test."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name in ("i3d", "clip"):
        monkeypatch.setitem(NETWORKS, name, f"stub_networks:load_{name}")
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def colours():
    """colours(count, seed, side): captions that name a colour, and clips of 16 frames of that colour, no two alike."""

    def make(count, seed=0, side=32):
        rng = np.random.default_rng(seed)
        clips = []
        for number in range(count):
            clip = rng.integers(0, 90, (16, 1, 1, 3)) + rng.integers(0, 8, (16, side, side, 3))
            clip[..., number % 3] += 150
            clips.append((f"a {('red', 'green', 'blue')[number % 3]} wall {number}", clip.astype(np.uint8)))
        return clips

    return make
