import csv
import json

import pytest

from timeloom.errors import TimeloomError
from timeloom.study import command
from timeloom.study.design import LINKS, read_study
from timeloom.study.offline import add_votes
from timeloom.study.store import Store, count_votes

from .conftest import read_json


@pytest.fixture()
def laid(folder, tmp_path, capsys):
    """The study as a folder for another web server."""
    output = tmp_path / "web"
    assert command.main(["serve", str(folder), "--offline", str(output), "--url", "https://x.example/study/"]) == 0
    assert "https://x.example/study/?rater=" in capsys.readouterr().out
    return output


def returned(laid, number=0):
    """A rater's file of votes, all for the left."""
    path = sorted((laid / "raters").iterdir(), key=lambda path: read_json(path)["number"])[number]
    content = read_json(path)
    votes = [
        {"task": task["task"], "question": question, "choice": "left", "milliseconds": 2000}
        for task in content["tasks"]
        for question in range(len(content["questions"]))
    ]
    return {"study": content["study"], "rater": path.stem, "votes": votes}


def save(path, content):
    path.write_text(json.dumps(content))
    return path


def test_the_folder_is_whole_and_names_nothing(laid, folder):
    study = read_study(folder)
    assert sorted(path.name for path in laid.iterdir()) == ["index.html", "media", "raters"]
    assert {path.stem for path in (laid / "media").iterdir()} == study.clips
    assert len(list((laid / "raters").iterdir())) == study.links
    text = "".join(path.read_text() for path in (*laid.glob("raters/*"), laid / "index.html"))
    assert not any(name in text for name in ("alpha", "beta", "gamma"))
    assert 'data-mode="folder"' in text
    with (folder / LINKS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rater", "link", "completion_code"] and rows[0]["rater"] == "r0001"
    assert rows[0]["link"].startswith("https://x.example/study/?rater=") and len(rows) == study.links


def test_returned_votes_count_once_and_forged_ones_never(laid, folder, tmp_path):
    study = read_study(folder)
    mine = returned(laid)
    theirs = {**returned(laid, 1), "votes": mine["votes"][:1]}
    back = tmp_path / "back"
    back.mkdir()
    save(back / "mine.json", mine)
    save(back / "again.json", mine)
    save(back / "theirs.json", theirs)
    save(back / "other.json", {**mine, "study": "0" * 64})
    save(back / "wrong.json", {**mine, "votes": [{**mine["votes"][0], "choice": "alpha"}]})
    (back / "broken.json").write_text("{")
    save(back / "list.json", [])
    with Store(folder, study) as store:
        added = add_votes([back], study, store)
        assert (added.votes, added.known) == (26, 26)
        refused = "\n".join(added.refused)
        for said in (
            "theirs.json: vote 0 is refused",
            "other.json: is about another study",
            "wrong.json: votes.0.choice",
            "broken.json: is not JSON",
            "list.json: is no file of votes",
        ):
            assert said in refused
        assert len(added.refused) == 5
        with pytest.raises(TimeloomError, match="no such file of votes"):
            add_votes([tmp_path / "nowhere"], study, store)
    assert count_votes(folder) == 26


def test_the_report_takes_them(laid, folder, tmp_path, capsys):
    files = [str(save(tmp_path / f"{number}.json", returned(laid, number))) for number in range(2)]
    words = ["report", str(folder), "--resamples", "100", "--min-attention", "0", "--json", "--add", *files]
    assert command.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["votes"]["counted"] == 48 and report["questions"][0]["left_share"] == 1
    assert report["questions"][0]["median_seconds"] == 2.0


def test_a_folder_that_holds_something_is_kept(folder, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("mine")
    with pytest.raises(TimeloomError, match="is not empty"):
        command.main(["serve", str(folder), "--offline", str(tmp_path / "web")])
    assert (tmp_path / "web" / "index.html").read_text() == "mine"
