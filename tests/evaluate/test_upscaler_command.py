import json

import pytest
import torch

from timeloom.cli import main
from timeloom.errors import TimeloomError
from timeloom.evaluate import upscaler_command
from timeloom.models.rcan import RCAN
from timeloom.upscaler import Upscaler

RECIPE = """
task: upscaler
output: unused
data: {source: digits, num_frames: 1, height: 64, width: 64, validation_clips: 3}
degradation: {h264: 0.5}
schedule: {total_samples: 1}
"""


@pytest.fixture()
def words(tmp_path):
    torch.manual_seed(0)
    Upscaler(RCAN(num_groups=1, num_blocks=1, width=4, reduction=2, scale=4)).save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return ["evaluate", "upscaler", str(tmp_path / "model"), str(tmp_path / "recipe.yaml"), "--frames", "2"]


def test_both_ways_are_measured_on_the_same_degraded_clips(words, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main([*words, "--json", "--output", str(sheet)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first["clips"]) == 3 and sheet.is_file()
    assert {"first", "h264_crf", "seed", "bicubic", "network", "own_flicker"} <= first["clips"][0].keys()
    mean = sum(clip["bicubic"]["psnr"] for clip in first["clips"]) / 3
    assert first["bicubic"]["psnr"]["value"] == pytest.approx(mean)
    assert first["bicubic"]["psnr"]["value"] > first["network"]["psnr"]["value"] + 2  # it was never trained
    assert first["protocol"]["border"] == 4
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main([*words, "--json", "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["bicubic"] != first["bicubic"]


def test_bad_input_is_one_sentence(words, tmp_path, capsys):
    for more, complaint in (
        (["--frames", "1"], "--frames must be at least 2"),
        (["--fps", "0"], "--fps"),
        (["--set", "degradation.h265=1"], "Did you mean 'h264'"),
        (["--set", "degradation.autoencoder=1"], "Unknown model ''"),
        (["--set", "data.height=63"], "multiple of 8"),
    ):
        assert main([*words, *more]) == 2
        assert complaint in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_is_named_with_its_reason(words, monkeypatch, capsys):
    judge = upscaler_command.judge

    def fails_once(source, index, *rest):
        if index == 1:
            raise TimeloomError("its shard is cut short")
        return judge(source, index, *rest)

    monkeypatch.setattr(upscaler_command, "judge", fails_once)
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert len(report["clips"]) == 2 and list(report["missing"].values()) == ["its shard is cut short"]
    assert len(report["weights"]) >= 32 and report["data"]["source"] == "digits"
    assert "is left out: its shard is cut short" in captured.err
