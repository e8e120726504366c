import json

import numpy as np
import pytest
import torch

from timeloom.cli import main
from timeloom.data import read_metadata, read_video
from timeloom.models.rcan import RCAN
from timeloom.upscaler import Upscaler


@pytest.fixture()
def upscaler():
    torch.manual_seed(0)
    return Upscaler(RCAN(num_groups=1, num_blocks=1, width=4, reduction=2, scale=4))


def test_frames_are_made_larger_after_decoding_whatever_the_chunks(pipe, upscaler):
    plain = pipe("x", num_inference_steps=2).frames
    large = pipe("x", num_inference_steps=2, upscaler=upscaler).frames
    assert large.shape == (*plain.shape[:2], 4 * plain.shape[2], 4 * plain.shape[3], 3) and large.dtype == np.uint8
    chunked = pipe("x", num_inference_steps=2, upscaler=upscaler, decode_chunk_size=1).frames
    assert np.abs(chunked.astype(int) - large).max() <= 1
    # not rounded to bytes in between, so within a level of what the rounded frames give
    assert np.abs(upscaler.enlarge(plain[0]).astype(int) - large[0]).max() <= 3


def test_the_command_writes_larger_files_that_tell_how(pipe, upscaler, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "model")
    upscaler.save_pretrained(tmp_path / "large")
    words = ["generate", "x", "--model", str(tmp_path / "model"), "--steps", "2", "--quiet", "--json"]
    out = tmp_path / "x.mp4"
    assert main([*words, "--output", str(out), "--upscale", "--upscaler", str(tmp_path / "large")]) == 0
    assert json.loads(capsys.readouterr().out)["upscaler"] == str(tmp_path / "large")
    assert read_video(out).shape[1:] == (64, 64, 3)
    assert read_metadata(out)["upscaler"] == str(tmp_path / "large")
    other = tmp_path / "y.mp4"
    assert main([*words, "--output", str(other), "--upscale", "--upscaler", str(tmp_path / "model")]) == 2
    assert "not a model that makes frames larger" in capsys.readouterr().err
    assert not other.exists()
