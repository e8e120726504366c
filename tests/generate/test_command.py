import json

import numpy as np
import pytest

from timeloom import cli
from timeloom.data import probe_video, read_metadata, read_video
from timeloom.generate import pipeline

PROMPT = "a red seven"


@pytest.fixture()
def generate(tiny_model, tmp_path, monkeypatch):
    """Runs `timeloom generate` on the tiny model in an empty working directory; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(["generate", *words, "--model", str(tiny_model), "--quiet", "--device", "cpu"])


def test_a_prompt_becomes_a_file_that_tells_how_it_was_made(generate, capsys):
    assert generate(PROMPT, "--output", "seven.mp4", "--seed", "3", "--negative-prompt", "blue") == 0
    assert capsys.readouterr().out == "seven.mp4\n"
    info = probe_video("seven.mp4")
    assert (info.num_frames, info.width, info.height, info.fps) == (4, 16, 16, 8)
    metadata = read_metadata("seven.mp4")
    assert (metadata["prompt"], metadata["negative_prompt"], metadata["seed"]) == (PROMPT, "blue", "3")
    assert (metadata["sampler"], metadata["num_inference_steps"], metadata["guidance_scale"]) == ("ddim", "3", "3.0")
    assert {"model", "timeloom"} <= set(metadata)


def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(generate, tmp_path):
    (tmp_path / "prompts.txt").write_text(f"blue two\n\n{PROMPT}\n")
    assert generate("--prompts", "prompts.txt", "--output", "out", "--seed", "6") == 0
    assert generate(PROMPT, "--output", "alone.mp4", "--seed", "7") == 0
    assert (tmp_path / "out/000001-a-red-seven.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_without_its_mechanism_every_frame_stands_alone(generate, tmp_path):
    assert generate(PROMPT, "--output", "with.png", "--format", "png") == 0
    assert generate(PROMPT, "--output", "without.png", "--without-temporal") == 0
    assert read_metadata(tmp_path / "without.png")["without_temporal"] == "True"
    assert "without_temporal" not in read_metadata(tmp_path / "with.png")
    assert (read_video(tmp_path / "with.png") != read_video(tmp_path / "without.png")).any()


def test_one_frame_becomes_an_image(generate, tmp_path):
    assert generate(PROMPT, "--frames", "1") == 0
    assert read_video(tmp_path / "a-red-seven.png").shape == (1, 16, 16, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_formats_and_options(generate, suffix):
    words = [
        "--frames",
        "3",
        "--width",
        "24",
        "--steps",
        "2",
        "--guidance",
        "1",
        "--sampler",
        "dpm-solver++",
        "--fps",
        "5",
    ]
    assert generate(PROMPT, "--output", f"clip{suffix}", *words) == 0
    info = probe_video(f"clip{suffix}")
    assert (info.num_frames, info.width, info.height) == (3, 24, 16)
    assert info.fps == pytest.approx(5, rel=1e-3)


def test_a_folder_goes_on_where_it_stopped(generate, tmp_path, capsys):
    words = [PROMPT, "--num-samples", "3", "--output", "out/", "--json", "--contact-sheet", "sheet.png", "--overwrite"]
    assert generate(*words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["seed"] for entry in result["files"]] == [0, 1, 2]
    assert result["contact_sheet"] == "sheet.png"
    assert (tmp_path / "sheet.png").exists()
    clips = [read_video(tmp_path / entry["file"]) for entry in result["files"]]
    assert not np.array_equal(clips[0], clips[1])

    lost = tmp_path / result["files"][1]["file"]
    before = lost.read_bytes()
    lost.unlink()
    assert generate(PROMPT, "--num-samples", "3", "--output", "out/", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert ([entry["seed"] for entry in again["files"]], again["kept"]) == ([1], 2)
    assert lost.read_bytes() == before
    assert generate(PROMPT, "--num-samples", "3", "--output", "out/") == 0
    assert "3 clip(s) were there already" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished(generate, tmp_path, monkeypatch, capsys):
    call = pipeline.TextToVideoPipeline.__call__

    def interrupted(self, prompts, seeds, **arguments):
        if seeds == [2]:
            raise KeyboardInterrupt
        return call(self, prompts, seeds=seeds, **arguments)

    monkeypatch.setattr(pipeline.TextToVideoPipeline, "__call__", interrupted)
    assert generate(PROMPT, "--num-samples", "4", "--output", "out/", "--json") == 130
    result = json.loads(capsys.readouterr().out)
    assert (len(result["files"]), result["missing"], result["interrupted"]) == (2, 2, True)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_existing_file_is_kept_unless_overwrite(generate, tmp_path, capsys):
    (tmp_path / "seven.mp4").write_text("precious")
    assert generate(PROMPT, "--output", "seven.mp4") == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "seven.mp4").read_text() == "precious"
    assert generate(PROMPT, "--output", "seven.mp4", "--overwrite") == 0
    assert probe_video(tmp_path / "seven.mp4").num_frames == 4


def test_a_long_prompt_warns_and_goes_on(generate, caplog):
    assert generate("red seven red seven red seven red six and a blue two", "--output", "long.gif") == 0
    assert "'and a blue two'" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one prompt, or --prompts"),
        ([""], "prompt is empty"),
        ([PROMPT, "--frames", "0"], "--frames must be at least 1"),
        ([PROMPT, "--frames=-1"], "--frames must be at least 1"),
        ([PROMPT, "--frames", "10000"], "to 1024, not 10000"),
        ([PROMPT, "--height", "17"], "height must be a multiple"),
        ([PROMPT, "--sampler", "dimm"], "Did you mean 'ddim'?"),
        ([PROMPT, "--output", "clip.mp5"], "Did you mean '.mp4'?"),
        ([PROMPT, "--output", "a-file/clip.mp4"], "Cannot write to the folder a-file"),
        ([PROMPT, "--output", "out.mp4", "--num-samples", "2"], "Several clips need a folder"),
        ([PROMPT, "--output", "clip.gif", "--fps", "60"], "at most 50 frames a second"),
        ([PROMPT, "--fps", "0"], "--fps must be above 0"),
        ([PROMPT, "--seed=-1"], "--seed must be at least 0"),
        ([PROMPT, "--contact-sheet", "sheet.mp4"], "sheet.mp4"),
        (["--prompts", "a-file"], "needs --output"),
        (["--prompts", "missing.txt", "--output", "out"], "Cannot read the prompts file"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(generate, tmp_path, capsys, words, message):
    (tmp_path / "a-file").write_text("not a folder")
    assert generate(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_an_unknown_model(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", PROMPT, "--model", "digits-shfit"]) == 2
    assert "Unknown model 'digits-shfit'" in capsys.readouterr().err
