"""A whole evaluation, from a model or from folders, on stand-ins for the networks and the model."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from timeloom.data import write_video
from timeloom.errors import TimeloomError
from timeloom.evaluate import command, generation
from timeloom.evaluate.compare import main as compare
from timeloom.evaluate.compare import read_result, require_comparable
from timeloom.generate.pipeline import NonFiniteError

N, SIDE = 40, 16
SETTINGS = {
    "num_frames": 16,
    "fps": 8.0,
    "height": SIDE,
    "width": SIDE,
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "sampler": "ddim",
    "precision": "fp32",
    "weights_sha256": "7" * 64,
    "timeloom": "0",
    "torch": "0",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, colours):
    """Real videos with WebVid's CSV, and the file of a protocol about them."""
    folder = tmp_path_factory.mktemp("walls")
    rows = ["videoid,name,page_dir"]
    for number, (text, clip) in enumerate(colours(N, side=SIDE)):
        write_video(folder / "real" / f"{number}.mp4", clip, 8)
        rows.append(f"{number},{text},")
    (folder / "annotations.csv").write_text("\n".join(rows))
    content = {
        "name": "walls",
        "clip": {"height": SIDE, "width": SIDE},
        "prompts": {"source": "webvid"},
        "generated": N,
        "real": {"count": N},
        "metrics": {"fvd": {"replicates": 4}, "kvd": {}, "clipsim": {"replicates": 4}},
        "published": [{"model": "A paper", "mark": "text", "values": {"fvd": 1.5, "clipsim": 0.9}}],
    }
    (folder / "walls.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def data(tmp_path, written):
    """A copy of `written`, to be changed."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


class Painter:
    """A model that paints the wall that is asked for; `refuses` are prompts at which it breaks."""

    def __init__(self, colours, refuses=()):
        self.walls = dict(colours(N, seed=5, side=SIDE))
        self.refuses, self.painted = refuses, []

    def __call__(self, texts, *, seeds, num_frames, **settings):
        if any(text in self.refuses for text in texts):
            raise NonFiniteError("Values that are not finite in latents at step 1.")
        self.painted += zip(texts, seeds, strict=True)
        return SimpleNamespace(frames=np.stack([self.walls[text][:num_frames] for text in texts]))


@pytest.fixture
def painter(colours, monkeypatch):
    made = Painter(colours)
    monkeypatch.setattr(generation, "load_model", lambda options: (made, dict(SETTINGS)))
    return made


def words(data, *more, output="out"):
    base = ["--protocol", data / "walls.yaml", "--real", data / "real", "--output", data / output, "--workers", 0]
    return [str(word) for word in [*base, "--device", "cpu", *more]]


def generated(data, *more, output="out"):
    model = ["--model", "painter", "--annotations", data / "annotations.csv", "--batch-size", 7]
    assert command.main(words(data, *model, *more, output=output)) == 0
    return json.loads((data / output / "result.json").read_text())


def values(result):
    return {one["metric"]: (one["value"], one["interval"]) for one in result["results"]}


def test_from_prompts_to_a_report(stub_networks, data, painter, capsys):
    result = generated(data)
    assert [seed for _, seed in painter.painted] == list(range(N))
    assert result["generated"]["count"] == result["generated"]["asked"] == result["real"]["count"] == N
    assert result["departures"] == [] and not result["generated"]["missing"]
    fvd, _, clipsim = result["results"]
    assert fvd["metric"] == "fvd" and fvd["value"] > 0 and fvd["count"] == fvd["reference_count"] == N
    assert fvd["features"]["weights_sha256"] == "5" * 64 and fvd["interval"] is not None
    assert clipsim["value"] > 0.8 and clipsim["reference_count"] == N
    assert result["prompts"]["count"] == N and len(result["prompts"]["sha256"]) == 64
    assert result["generated"]["settings"]["weights_sha256"] == "7" * 64 and "torch" in result["versions"]
    page = (data / "out" / "report.html").read_text()
    assert page.count("data:image/webp") == 16 and "A paper" in page and "[text]" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "")
    assert "A paper" in capsys.readouterr().out


def test_stopped_and_shared_runs_give_the_same(stub_networks, data, painter, monkeypatch):
    whole = generated(data)
    for part in ("0/3", "2/3", "1/3"):
        model = ["--model", "painter", "--annotations", data / "annotations.csv"]
        assert command.main(words(data, *model, "--shard", part, output="parts")) == 0
    assert not (data / "parts" / "result.json").exists()
    painter.painted.clear()
    monkeypatch.setenv("TIMELOOM_CACHE", str(data / "another cache"))
    again = generated(data, "--workers", 2, output="parts")
    assert painter.painted == []
    for metric, (value, interval) in values(whole).items():
        assert values(again)[metric][0] == pytest.approx(value, rel=1e-6, abs=1e-6)
        assert values(again)[metric][1] == pytest.approx(interval, rel=1e-6, abs=1e-6)


def test_a_folder_made_elsewhere_gives_the_same_as_generating(stub_networks, data, painter):
    own = generated(data)
    fake = ["--fake", data / "out" / "videos", "--annotations", data / "annotations.csv"]
    assert command.main(words(data, *fake, output="folder")) == 0
    other = read_result(data / "folder")
    assert values(other) == values(own)
    require_comparable([own, other], ["own", "other"])


def test_what_is_missing_lowers_the_denominator(stub_networks, data, painter, capsys):
    painter.refuses = ["a green wall 1", "a blue wall 5"]
    (data / "real" / "3.mp4").unlink()
    (data / "real" / "7.mp4").write_bytes(b"no video")
    result = generated(data)
    assert result["generated"]["asked"] == N and result["generated"]["count"] == N - 2
    assert all("not finite" in why for why in result["generated"]["missing"].values())
    assert [one["missing"] for one in result["results"]] == [2, 2, 2]
    assert [one["count"] for one in result["results"]] == [N - 2] * 3
    assert sorted(result["real"]["missing"]) == ["3.mp4", "7.mp4"] and result["real"]["count"] == N - 2
    assert result["results"][0]["reference_count"] == N - 2
    assert result["departures"] == [f"{N - 1} real videos in place of {N}", f"{N - 2} generated videos in place of {N}"]
    page = (data / "out" / "report.html").read_text()
    assert "<mark>2 missing</mark>" in page and "7.mp4: i3d: is not a video" in page


def test_a_trial_says_that_it_is_one(stub_networks, data, painter):
    result = generated(data, "--num-prompts", 6)
    assert result["generated"]["count"] == 6 and f"6 of {N} prompts, by --num-prompts" in result["departures"]
    assert len({seed for _, seed in painter.painted}) == 6
    assert generated(data)["generated"]["count"] == N and len(painter.painted) == N


def test_a_folder_belongs_to_one_model(stub_networks, data, painter, monkeypatch):
    generated(data)
    monkeypatch.setattr(generation, "load_model", lambda options: (painter, {**SETTINGS, "guidance_scale": 2.0}))
    with pytest.raises(TimeloomError, match="different: guidance_scale"):
        generated(data)
    painter.painted.clear()
    generated(data, "--overwrite")
    assert len(painter.painted) == N


def test_short_and_few_videos(stub_networks, data, colours, capsys):
    for number, (text, clip) in enumerate(colours(4, seed=9, side=SIDE)):
        write_video(data / "fake" / f"{text}-0.mp4", clip[: 16 if number else 9], 8)
    assert command.main(words(data, "--fake", data / "fake")) == 0
    result = read_result(data / "out")
    (name,) = result["generated"]["missing"]
    assert name == "a red wall 0-0.mp4" and "ends at" in result["generated"]["missing"][name]
    assert "generated videos are of 2 different sizes, lengths or rates" in result["departures"]
    for path in sorted((data / "fake").iterdir())[1:]:
        path.unlink()
    with pytest.raises(TimeloomError, match=r"generated videos: fvd needs at least 2 videos, not \d"):
        command.main(words(data, "--fake", data / "fake"))


def test_what_is_lacking_is_said_before_anything_is_done(stub_networks, data, painter):
    with pytest.raises(TimeloomError, match="give --annotations, WebVid's CSV"):
        command.main(words(data, "--model", "painter"))
    content = yaml.safe_load((data / "walls.yaml").read_text())
    (data / "walls.yaml").write_text(yaml.safe_dump({**content, "clip": {"num_frames": 8}}, sort_keys=False))
    with pytest.raises(TimeloomError, match="i3d takes clips of at least 9 frames, and the protocol has 8"):
        command.main(words(data, "--fake", data / "real"))
    (data / "walls.yaml").write_text(yaml.safe_dump({**content, "prompts": None}, sort_keys=False))
    with pytest.raises(TimeloomError, match="has no prompts; give --fake"):
        command.main(words(data, "--model", "painter"))
    without_real = [word for word in words(data, "--fake", data / "real") if word != "--real"]
    without_real.remove(str(data / "real"))
    with pytest.raises(TimeloomError, match="--real, the folder of real videos, is needed for fvd, kvd"):
        command.main(without_real)


def test_weights_that_are_not_here_are_asked_for(data, monkeypatch, tmp_path):
    monkeypatch.delenv("TIMELOOM_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    with pytest.raises(TimeloomError, match="weights of I3D are not here, and nothing is downloaded"):
        command.main(words(data, "--fake", data / "real"))


def test_a_model_whose_clips_are_too_short(stub_networks, data, painter, monkeypatch):
    monkeypatch.setattr(generation, "load_model", lambda options: (painter, {**SETTINGS, "num_frames": 15}))
    with pytest.raises(TimeloomError, match="clips of 15 frames at 8 a second are shorter than the protocol's 16"):
        generated(data)


def test_identical_sets_are_nothing_apart(stub_networks, data):
    content = yaml.safe_load((data / "walls.yaml").read_text())
    (data / "walls.yaml").write_text(yaml.safe_dump({**content, "metrics": {"fvd": {"replicates": 4}}}))
    assert command.main(words(data, "--fake", data / "real")) == 0
    assert read_result(data / "out")["results"][0]["value"] < 1e-6


def test_results_stand_in_one_table_only_if_they_were_measured_alike(stub_networks, data, painter, capsys):
    generated(data, output="a")
    command.main(words(data, "--fake", data / "a" / "videos", "--annotations", data / "annotations.csv", output="b"))
    capsys.readouterr()
    assert compare([str(data / "a"), str(data / "b" / "result.json"), "--json"]) == 0
    assert [one["fvd"]["count"] for one in json.loads(capsys.readouterr().out)] == [N, N]
    assert compare([str(data / "a"), str(data / "b")]) == 0
    assert "walls (" in capsys.readouterr().out
    content = yaml.safe_load((data / "walls.yaml").read_text())
    content["metrics"]["fvd"]["ddof"] = 0
    (data / "walls.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command.main(words(data, "--fake", data / "a" / "videos", "--annotations", data / "annotations.csv", output="c"))
    with pytest.raises(TimeloomError, match=r"differ in protocol metrics\.fvd\.ddof"):
        compare([str(data / "a"), str(data / "c")])
    first = read_result(data / "a")
    other = json.loads(json.dumps(first))
    other["results"][0]["features"]["weights_sha256"] = "6" * 64
    with pytest.raises(TimeloomError, match="features of fvd"):
        require_comparable([first, other], ["a", "b"])
    with pytest.raises(TimeloomError, match="is no result"):
        compare([str(data / "real")])


def test_torchruns_processes_meet_and_the_first_measures(stub_networks, data, painter, monkeypatch):
    """One process in the place of two: the other's part was done before."""
    meetings = []
    for name, value in (("barrier", lambda: meetings.append(1)), ("init_process_group", lambda *_, **__: None)):
        monkeypatch.setattr(f"torch.distributed.{name}", value)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = ["--model", "painter", "--annotations", data / "annotations.csv"]
    for rank in (1, 0):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        assert command.main(words(data, *model)) == 0
        assert (data / "out" / "result.json").exists() == (rank == 0)
    assert len(meetings) == 2 and len(painter.painted) == N
    with pytest.raises(TimeloomError, match="--overwrite throws videos away"):
        command.main(words(data, *model, "--overwrite"))


@pytest.fixture
def on_digits_network(data, tmp_path, monkeypatch):
    """The same, but on the real network of digits: in a process of its own nothing is replaced."""
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "cache"))
    content = yaml.safe_load((data / "walls.yaml").read_text())
    content["metrics"] = {"digits-fvd": {"replicates": 4}}
    (data / "walls.yaml").write_text(yaml.safe_dump(content))
    assert command.main(words(data, "--fake", data / "real", output="alone")) == 0
    shutil.rmtree(tmp_path / "cache")  # the features are to be made again
    return data


@pytest.mark.long
def test_rays_tasks_share_the_work(on_digits_network):
    data = on_digits_network
    pytest.importorskip("ray")
    assert command.main(words(data, "--fake", data / "real", "--ray", 2, output="shared")) == 0
    assert read_result(data / "alone")["results"] == read_result(data / "shared")["results"]


@pytest.mark.slow
def test_two_processes_of_torchrun_share_the_work(on_digits_network):
    data = on_digits_network
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "timeloom"]
    evaluate = ["evaluate", *words(data, "--fake", data / "real", output="shared")]
    subprocess.run([*launcher, *evaluate], check=True, capture_output=True)
    assert read_result(data / "alone")["results"] == read_result(data / "shared")["results"]
