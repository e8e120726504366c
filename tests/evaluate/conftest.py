"""Real test clips and one judge for all tests of this folder."""

from dataclasses import dataclass

import numpy as np
import pytest

from timeloom.data.clip import Frames, Window
from timeloom.data.digits import DigitsSource, Scene
from timeloom.evaluate.judge import Judge

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
