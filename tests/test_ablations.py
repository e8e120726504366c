"""The ablations and `timeloom evaluate papers`, whole, on tiny models, stopped and run again."""

import importlib
import json
import shutil
import sys

import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.papers import cases

UNET = (
    "model.unet={sample_size: 8, block_out_channels: [8, 16], layers_per_block: 1, "
    "down_block_types: [DownBlock2D, CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D, UpBlock2D], "
    "cross_attention_dim: 96, attention_head_dim: 4, norm_num_groups: 4}"
)
TINY = [
    *("data.validation_clips=2", "schedule.batch_size=4", "optimizer.warmup_samples=4"),
    *("preview.num_inference_steps=1", "preview.prompts=[a red seven]"),
]


@pytest.fixture(scope="module")
def ablations(project):
    """The command, imported as `python benchmarks/ablations.py` does."""
    folder = project / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not part of this distribution")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("ablations")
    for name in ("ablations", "ablation_studies"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def whole(ablations, tmp_path_factory):
    """The folder of a whole run of two seeds, and the words that made it."""
    folder = tmp_path_factory.mktemp("ablations")
    words = [
        *("--images", "12", "--clips", "12", "--seeds", "0", "3", "--prompts", "8", "--steps", "2", "--rounds", "2"),
        *("--runs", str(folder / "runs"), "--page", str(folder / "docs" / "results.md")),
        *("--device", "cpu"),
        *("--image-set", UNET, *TINY, "data.fps=2", "--set", *TINY, "data.num_frames=4", "data.fps=2"),
    ]
    assert ablations.main(words) == 0
    return folder, words


CASES = [
    *("image model, images", "shift, videos", "shift taken out, videos", "shift, images", "shift taken out, images"),
    *("attention, videos", "attention taken out, videos", "attention, images", "attention taken out, images"),
]


def report_in(folder):
    return json.loads((folder / "docs" / "results" / "ablations.json").read_text())


def calls(ablations, monkeypatch):
    """The commands that are run from now on: what is trained, and what is judged."""
    seen, train, judge = [], ablations.timeloom, cases._evaluate
    monkeypatch.setattr(ablations, "timeloom", lambda *words: (seen.append(words[:2]), train(*words)))
    monkeypatch.setattr(cases, "_evaluate", lambda *words: (seen.append(words[:1]), judge(*words)))
    return seen


@pytest.mark.slow
def test_page_and_numbers_are_there(whole):
    folder, _ = whole
    report = report_in(folder)
    assert {name: len(case["runs"]) for name, case in report["cases"].items()} == {
        name: 1 if name.startswith("image model") else 2 for name in CASES
    }
    shift, attention = (report["models"][mechanism][1]["training"]["recipe"] for mechanism in ("shift", "attention"))
    assert shift["loss"]["image_share"] == 0 and shift["seed"] == 3 and shift["schedule"]["total_samples"] == 12
    differ = {key for key in shift if shift[key] != attention[key]}
    assert differ == {"output", "model"}
    assert {key for key in shift["model"] if shift["model"][key] != attention["model"][key]} == {"temporal"}
    assert report["steps"]["shift"]["parameters"] < report["steps"]["attention"]["parameters"]
    claimed = [found for found in report["comparisons"] if found["metrics"]["all"]["paper"]]
    assert len(claimed) == 5 and all(found["metrics"]["all"]["over_runs"] for found in claimed)

    text = (folder / "docs" / "results.md").read_text()
    assert "## Trained alike: shift and attention from one image model" in text and f"at {report['version']}" in text
    assert "12 samples in batches of 4" in text and "ddpm, 2 steps, guidance 3" in text
    for case in CASES:
        assert f"\n| {case} | " in text
    for picture in ("videos", "images"):
        assert (folder / "docs" / "pictures" / f"papers_ablations_{picture}.png").stat().st_size > 1000
        assert f"(pictures/papers_ablations_{picture}.png)" in text


@pytest.mark.slow
def test_everything_is_compared_on_equal_terms(whole):
    """All that decides the clips is the same for all cases of a kind, but for the weights."""
    judged = report_in(whole[0])["cases"]
    for kind in ("videos", "images"):
        protocols = [run["protocol"] for case in judged.values() if case["kind"] == kind for run in case["runs"]]
        assert len({json.dumps({**one, "weights_sha256": None}, sort_keys=True) for one in protocols}) == 1
        assert len({one["weights_sha256"] for one in protocols}) == len(protocols)
        assert protocols[0]["num_frames"] == (1 if kind == "images" else 4)


@pytest.mark.slow
def test_run_again_it_trains_and_judges_nothing(whole, ablations, monkeypatch):
    folder, words = whole
    before = report_in(folder), (folder / "docs" / "results.md").read_bytes()
    seen = calls(ablations, monkeypatch)
    assert ablations.main(words) == 0
    assert seen == [("evaluate", "papers")]
    assert (report_in(folder), (folder / "docs" / "results.md").read_bytes()) == before


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_numbers(whole, ablations, monkeypatch):
    folder, words = whole
    before = report_in(folder)
    shutil.rmtree(folder / "runs" / "attention-3" / "model")  # as killed after the last checkpoint
    (unfinished,) = (folder / "runs" / "judged").glob("shift-0-*/images-ddpm-2-guidance-3")
    (unfinished / "result.json").unlink()
    (unfinished / "clips" / "00001.npz").unlink()
    seen = calls(ablations, monkeypatch)
    assert ablations.main(words) == 0
    assert seen == [("train", "digits/video_attention"), ("evaluate", "papers"), ("--model",)]
    after = report_in(folder)
    assert after["comparisons"] == before["comparisons"]
    assert after["models"] == before["models"]


@pytest.mark.slow
def test_a_folder_belongs_to_one_set_of_options(whole, ablations):
    with pytest.raises(TimeloomError, match=r"begun with other options \(clips\)"):
        ablations.main([*whole[1], "--clips", "16"])


def test_the_other_paper_trains_in_two_phases(ablations, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(ablations, "timeloom", lambda *words: seen.append(words))
    monkeypatch.setattr(ablations, "claim", lambda options: None)
    words = ["--paper", "videofactory", "--runs", str(tmp_path), "--image-model", "digits-shift", "--clips", "40"]
    assert ablations.main([*words, "--seeds", "0", "1"]) == 0
    *trainings, papers = seen
    runs = {next(word for word in one if word.startswith("output=")): one for one in trainings}
    assert len(runs) == len(trainings) == 20
    swap = runs[f"output={tmp_path}/swap-global-1"]
    assert f"model.unet={tmp_path}/first-phase-1/model" in swap and "schedule.total_samples=20" in swap
    assert "schedule.total_samples=40" in runs[f"output={tmp_path}/shift-0"]
    models = papers[papers.index("--models") + 1 : papers.index("--name")]
    assert f"{tmp_path}/image" in models and len(models) == 1 + 2 * 8
    assert not [model for model in models if "phase" in model]


@pytest.mark.parametrize("seeds", [("0",), ("1", "1"), ("-1", "0")])
def test_an_interval_needs_different_seeds(ablations, seeds, tmp_path):
    with pytest.raises(TimeloomError, match="two different numbers"):
        ablations.main(["--runs", str(tmp_path), "--seeds", *seeds])


def test_what_has_seen_video_is_no_start(ablations, tmp_path):
    with pytest.raises(TimeloomError, match="digits-shift is a video model"):
        ablations.main(["--runs", str(tmp_path), "--image-model", "digits-shift"])


def test_a_command_that_fails_stops_everything(ablations, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablations.timeloom("train", "no/such_recipe")
    assert stopped.value.code == 2
    assert "$ timeloom train no/such_recipe" in capsys.readouterr().out
