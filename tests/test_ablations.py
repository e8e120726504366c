"""The ablations: what decides a verdict, and the whole command on tiny models, stopped and run again."""

import importlib
import json
import shutil
import sys

import pytest

from timeloom.errors import TimeloomError

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
def modules(project):
    """The command and its page, imported as `python benchmarks/ablations.py` does."""
    folder = project / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not part of this distribution")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("ablations"), importlib.import_module("ablations_page")
    for name in ("ablations", "ablations_page", "ablation_studies"):
        sys.modules.pop(name, None)


@pytest.fixture()
def ablations(modules):
    return modules[0]


@pytest.fixture()
def page(modules):
    return modules[1]


def results(*runs):
    """A case that was judged by one metric, a text of marks for each run."""
    return [{"marks": {"all": run}} for run in runs]


# Verdicts


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 0.3), (0.01, 0.4)], "agrees"),
        ([(-0.3, -0.1), (-0.4, -0.01)], "disagrees"),
        ([(0.1, 0.3), (-0.01, 0.4)], "undecided"),
        ([(0.1, 0.3), (-0.4, -0.01)], "undecided"),
        ([(0.0, 0.0)], "undecided"),
    ],
)
def test_only_what_every_interval_says_is_decided(page, intervals, expected):
    assert page.verdict(*intervals) == expected


def test_a_difference_by_hand(page):
    found = page.difference(results("1111", "1110", "1100"), results("0000", "0000", "0000"), "all")
    assert found["mean"] == pytest.approx(0.75)
    # Seeds differ by 1, 0.75 and 0.5: standard deviation 0.25, and Student's 97.5 % point for 2 degrees is 4.3027.
    half = 4.302653 * 0.25 / 3**0.5
    assert found["over_seeds"] == pytest.approx((0.75 - half, 0.75 + half), abs=1e-6)
    # Prompts differ by 1, 1, 2/3 and 1/3: standard deviation √(11/36 · 1/3) = 0.3191, 3.1824 for 3 degrees.
    half = 3.182446 * 0.319142 / 2
    assert found["over_prompts"] == pytest.approx((0.75 - half, 0.75 + half), abs=1e-5)
    assert found["verdict"] == "agrees"


def test_a_difference_the_other_way_round_is_its_mirror(page):
    better, worse = results("1101", "1001"), results("0001", "0101")
    there, back = (page.difference(*pair, "all") for pair in ((better, worse), (worse, better)))
    assert there["mean"] == -back["mean"]
    assert there["over_seeds"] == pytest.approx(tuple(-end for end in reversed(back["over_seeds"])))


def test_one_run_stands_against_several(page):
    found = page.difference(results("1111", "1100"), results("1000"), "all")
    assert found["mean"] == pytest.approx(0.5)  # of 0.75 and 0.25
    assert page.share_cell(results("1000"), "all").startswith("25.0 (one run; ")


def test_shares_say_how_sure_they_are(page):
    assert page.share_cell(results("1" * 50 + "0" * 50, "1" * 50 + "0" * 50), "all") == "50.0 (50 to 50; 40 to 60)"
    assert page.share_cell(results("1111", "0000"), "all").startswith("50.0 (0 to 100; ")  # a share stays a share


@pytest.mark.parametrize(
    ("better", "worse", "said"),
    [
        ("11111110", "00000001", "this **agrees with the paper**"),
        ("00000001", "11111110", "this **disagrees with the paper**"),
        ("11110000", "11100001", "this is **undecided**"),
    ],
)
def test_the_page_says_what_the_intervals_say(page, better, worse, said):
    studies = importlib.import_module("ablation_studies")
    section = studies.Section("Title", "The paper.", ("a", "b"), (studies.Comparison("a", "b", "A is better"),))
    judge = {"judge": {"all": {"all": {"value": 1.0}}}, "num_prompts": 8}
    judged = {
        name: [{**one, **judge} for one in results(marks, marks)] for name, marks in (("a", better), ("b", worse))
    }
    metrics = {"all": page.difference(judged["a"], judged["b"], "all")}
    text = "\n".join(page.section_lines(section, judged, [{"of": "a", "against": "b", "metrics": metrics}]))
    assert f"A is better: all three at once, {said}" in text


# The command


@pytest.fixture(scope="module")
def whole(modules, tmp_path_factory):
    """The folder of a whole run of two seeds, and the words that made it."""
    folder = tmp_path_factory.mktemp("ablations")
    words = [
        *("--images", "12", "--clips", "12", "--seeds", "0", "3", "--prompts", "8", "--steps", "2", "--rounds", "2"),
        *("--runs", str(folder / "runs"), "--page", str(folder / "docs" / "results.md")),
        *("--results", str(folder / "ablations.json"), "--device", "cpu"),
        *("--image-set", UNET, *TINY, "data.fps=2", "--set", *TINY, "data.num_frames=4", "data.fps=2"),
    ]
    assert modules[0].main(words) == 0
    return folder, words


def calls(ablations, monkeypatch):
    """The commands that are run from now on."""
    seen, run = [], ablations.timeloom
    monkeypatch.setattr(ablations, "timeloom", lambda *words: (seen.append(words), run(*words)))
    return seen


@pytest.mark.slow
def test_page_and_numbers_are_there(whole, ablations):
    folder, _ = whole
    report = json.loads((folder / "ablations.json").read_text())
    assert {name: len(runs) for name, runs in report["judged"].items()} == {
        case.name: 1 if case.model == "image model" else 2 for case in ablations.STUDIES["latent-shift"].cases
    }
    shift, attention = (report["training"][mechanism][1]["recipe"] for mechanism in ("shift", "attention"))
    assert shift["loss"]["image_share"] == 0 and shift["seed"] == 3 and shift["schedule"]["total_samples"] == 12
    differ = {key for key in shift if shift[key] != attention[key]}
    assert differ == {"output", "model"}
    assert {key for key in shift["model"] if shift["model"][key] != attention["model"][key]} == {"temporal"}
    assert report["steps"]["shift"]["parameters"] < report["steps"]["attention"]["parameters"]

    text = (folder / "docs" / "results.md").read_text()
    assert "Made by `python benchmarks/ablations.py --images 12" in text and f"at {report['version']}" in text
    assert "12 clips of 4 frames in batches of 4" in text and "ddpm, 2 steps, guidance 3" in text
    for case in ablations.STUDIES["latent-shift"].cases:
        assert f"\n| {case.name} | " in text
    for picture in ("videos", "images"):
        assert (folder / "docs" / "pictures" / f"ablation_{picture}.png").stat().st_size > 1000
        assert f"(pictures/ablation_{picture}.png)" in text


@pytest.mark.slow
def test_everything_is_compared_on_equal_terms(whole):
    """All that decides the clips is the same for all cases of a kind, but for the weights."""
    judged = json.loads((whole[0] / "ablations.json").read_text())["judged"]
    for kind in ("videos", "images"):
        protocols = [run["protocol"] for case, runs in judged.items() if case.endswith(kind) for run in runs]
        assert len({json.dumps({**one, "weights_sha256": None}, sort_keys=True) for one in protocols}) == 1
        assert len({one["weights_sha256"] for one in protocols}) == len(protocols)
        assert protocols[0]["num_frames"] == (1 if kind == "images" else 4)


@pytest.mark.slow
def test_run_again_it_trains_and_judges_nothing(whole, ablations, monkeypatch):
    folder, words = whole
    before = (folder / "ablations.json").read_bytes(), (folder / "docs" / "results.md").read_bytes()
    seen = calls(ablations, monkeypatch)
    assert ablations.main(words) == 0
    assert not seen
    assert ((folder / "ablations.json").read_bytes(), (folder / "docs" / "results.md").read_bytes()) == before


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_numbers(whole, ablations, monkeypatch):
    folder, words = whole
    before = json.loads((folder / "ablations.json").read_text())
    shutil.rmtree(folder / "runs" / "attention-3" / "model")  # as killed after the last checkpoint
    unfinished = folder / "runs" / "judged" / "shift-images-0"
    (unfinished / "result.json").unlink()
    (unfinished / "clips" / "00001.npz").unlink()
    seen = calls(ablations, monkeypatch)
    assert ablations.main(words) == 0
    assert [words[:2] for words in seen] == [("train", "digits/video_attention"), ("evaluate", "--model")]
    after = json.loads((folder / "ablations.json").read_text())
    assert after["comparisons"] == before["comparisons"]
    assert after["training"] == before["training"]


@pytest.mark.slow
def test_a_folder_belongs_to_one_set_of_options(whole, ablations):
    with pytest.raises(TimeloomError, match=r"begun with other options \(guidance\)"):
        ablations.main([*whole[1], "--guidance", "5"])


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


@pytest.mark.slow
def test_videofactorys_ablations(ablations, tmp_path):
    """Two phases where Swap-CA is trained, as many clips in all for every arm, and its own page."""
    words = [
        *("--paper", "videofactory", "--images", "12", "--clips", "16", "--seeds", "0", "1", "--prompts", "8"),
        *("--steps", "1", "--rounds", "2", "--runs", str(tmp_path / "runs"), "--page", str(tmp_path / "results.md")),
        *("--results", str(tmp_path / "ablations.json"), "--device", "cpu"),
        *("--image-set", UNET, *TINY, "data.fps=2", "--set", *TINY, "data.num_frames=8", "data.fps=4"),
    ]
    assert ablations.main(words) == 0
    report = json.loads((tmp_path / "ablations.json").read_text())
    study = ablations.STUDIES["videofactory"]
    assert {name: len(runs) for name, runs in report["judged"].items()} == {case.name: 2 for case in study.cases}
    for arm in study.arms:
        for seed, run in enumerate(report["training"][arm.name]):
            model = run["recipe"]["model"]
            begun = arm.begins.replace(" ", "-") if arm.begins else "image"
            assert model["unet"] == str(tmp_path / "runs" / (f"{begun}-{seed}" if arm.begins else begun) / "model")
            phases = arm.begins or arm.name.startswith("first phase")
            assert run["recipe"]["schedule"]["total_samples"] == (8 if phases else 16)
    asked = {arm.name: report["training"][arm.name][0]["recipe"]["model"]["swap"] for arm in study.arms}
    assert [asked[name]["queries"] for name in ("plain addition", "spatial asks", "temporal asks", "swap")] == [
        *("none", "spatial", "temporal", "spatial_first")
    ]
    assert asked["swap, global"]["window"] == [0, 0, 0] and not asked["swap without skips"]["skips"]
    text = (tmp_path / "results.md").read_text()
    assert all(f"## {section.title}\n" in text for section in study.sections)
    assert "half of the clips with plain addition before" in text and "ablation_videofactory_videos.png" in text
    assert (tmp_path / "pictures" / "ablation_videofactory_videos.png").stat().st_size > 1000
