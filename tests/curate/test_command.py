"""A wrong option stops at once, with a sentence; packaged recipes are whole."""

import pytest

from timeloom.cli import main
from timeloom.curate.recipe import load, packaged
from timeloom.errors import TimeloomError


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "filters.hieght.min=3"], "Unknown column in filters: 'hieght'. Did you mean 'height'?"),
        (["--set", "captions.modle=x"], "Unknown option 'modle'. Did you mean 'model'?"),
        (["--set", "filters.height={min: 3, max: 2}"], "min 3 is above max 2"),
        (["--set", "output.form=zip"], "output.form"),
        (["--set", "output.metadata=[webvid]"], "webvid knows no spans; it needs output.form: files"),
        (["--set", "filters.clip_similarity.min=0.2"], "needs captions.similarity"),
        (["--set", "sampling.shares=equal"], "needs sampling.labels"),
        (["--set", "sampling.labels=none.csv"], "none.csv: there is no such file"),
        (["--set", "captions.file=none.csv"], "none.csv: there is no such file"),
        (["--set", "scan.clips={short_side: 64}"], "output.form: shards"),
        (["--set", "output.clips.max_duration_s=3"], "follows filters.duration_s"),
        (["--recipe", "hd-gv"], "Unknown recipe 'hd-gv'. Did you mean 'hd-vg'?"),
        (["--shard", "0/3"], "--shard reads i/n"),
        (["--shard", "4/3"], "--shard reads i/n"),
        (["--shard", "x"], "--shard reads i/n"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--device", "warp:9"], "--device warp:9 cannot be used"),
    ],
)
def test_wrong_options_stop_before_any_work(videos, tmp_path, capsys, words, sentence):
    assert main(["curate", str(videos), "--output", str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out/clips.parquet").exists()


def test_wrong_places(videos, tmp_path, capsys):
    assert main(["curate", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "none: there is no such folder of videos" in capsys.readouterr().err
    assert main(["curate", str(videos), "--output", str(videos / "a.mp4")]) == 2
    assert "is a file; a folder is needed" in capsys.readouterr().err


def test_pyscenedetect_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TimeloomError, match=r"pip install 'timeloom\[curate\]'"):
        load("hd-vg", ["scan.detector=pyscenedetect"])


@pytest.mark.parametrize("name", packaged())
def test_packaged_recipes_are_read(name):
    recipe = load(name)
    assert recipe.filters["duration_s"].max == 20


def test_the_default_is_the_paper():
    recipe = load("hd-vg")
    assert recipe.captions.model == "Salesforce/blip2-opt-2.7b"
    assert recipe.filters["height"].min == 720
    assert (recipe.scan.detector, recipe.scan.threshold) == ("content", 27.0)


def test_a_warning_names_the_model_that_is_missing_and_the_run_goes_on(videos, tmp_path, capsys):
    assert main(["curate", str(videos), "--output", str(tmp_path / "out"), "--workers", "0"]) == 0
    told = capsys.readouterr()
    assert "the model Salesforce/blip2-opt-2.7b is not here" in " ".join(told.err.split())
    assert "1 sources expected: 0 done + 1 failed" in told.out
