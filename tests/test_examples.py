"""The example runs, and says what the package says."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from timeloom.data import read_video
from timeloom.models.shift import temporal_shift

EXAMPLE = Path(__file__).parents[1] / "examples/minimal_latent_shift.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_shifts_as_the_package_does(example):
    features = torch.randn(2 * 5, 8, 3, 2)
    assert torch.equal(example.temporal_shift(features, 5), temporal_shift(features, 5))


def test_it_is_one_short_file_and_makes_clips(example, tmp_path, monkeypatch):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 200
    words = ["--image-steps", "1", "--video-steps", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *words])
    example.main()
    made = sorted(tmp_path.glob("*.mp4"))
    assert len(made) == len(example.PROMPTS)
    assert read_video(made[0]).shape == (example.FRAMES, example.SIDE, example.SIDE, 3)
