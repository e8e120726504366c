import json
import os

import pytest

from timeloom.curate import listing
from timeloom.curate.listing import (
    Candidate,
    choose,
    find_files,
    in_part,
    read_clip_captions,
    read_labels,
    with_sidecars,
)
from timeloom.errors import TimeloomError

ODD = ["a b.mp4", 'it\'s "so".mp4', "two\nlines.mp4", "žluťoučký 猫.mp4", "-dash.mp4", "a:b.mp4"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "videos"
    for name in (*ODD, "deep/er/one.MOV", "photo.xyz", "notes.txt", "captions.csv", "out/clips.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_every_file_is_a_video_or_told_why_not(folder):
    found = {candidate.path: candidate.why for candidate in find_files(folder, leave_out=folder / "out")}
    assert found == dict.fromkeys([*ODD, "deep/er/one.MOV"], "") | {"photo.xyz": "not a video by its name"}


def test_links_that_lead_back_or_nowhere_are_told(folder):
    (folder / "deep/back").symlink_to(folder)
    (folder / "deep/far back").symlink_to(folder.parent)
    (folder / "deep/self").symlink_to("self")
    (folder / "gone.mp4").symlink_to("nowhere")
    (folder / "good.mp4").symlink_to("a b.mp4")
    (folder / "twice").symlink_to("deep/er")
    why = {candidate.path: candidate.why for candidate in find_files(folder)}
    assert why["deep/back"] == why["deep/far back"] == "link that leads back to a folder above it"
    assert why["gone.mp4"] == why["deep/self"] == "link to a file that is not there"
    assert why["good.mp4"] == why["twice/one.MOV"] == ""


def test_names_that_are_no_utf8_are_told(folder):
    with open(os.fsencode(folder) + b"/bad\xff.mp4", "wb"):
        pass
    told = [candidate for candidate in find_files(folder) if "UTF-8" in candidate.why]
    assert [candidate.path for candidate in told] == ["bad\\xff.mp4"]


def test_a_folder_that_cannot_be_listed_is_told(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    told = {candidate.path: candidate.why for candidate in find_files(folder)}
    assert told["deep"] == "folder cannot be listed (Permission denied)"
    assert ODD[0] in told


def test_one_file(folder):
    assert list(find_files(folder / ODD[2])) == [Candidate(ODD[2])]


def test_labels_from_every_kind_of_file(tmp_path):
    (tmp_path / "a.csv").write_text("Label,file\nsport,./x/1.mp4\nfood,2.mp4\nother,2.mp4\n")
    (tmp_path / "b.jsonl").write_text('{"path": "x/1.mp4", "category": "sport"}\n\n{"video": "2.mp4", "class": 7}\n')
    lines = [{"video_id": "abc", "url": "u", "clip": [], "category": ["Music", "x"]}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_labels(tmp_path / "a.csv") == {"x/1.mp4": "sport", "2.mp4": "food"}
    assert read_labels(tmp_path / "b.jsonl") == {"x/1.mp4": "sport", "2.mp4": "7"}
    chosen, result = choose(
        [Candidate("d/abc.mkv"), Candidate("z.mp4")], read_labels(tmp_path / "c.jsonl"), None, "natural", 0
    )
    assert chosen == [Candidate("d/abc.mkv", "Music")]
    assert result.found == {"Music": 1}


def test_refused_files_stay_in_a_sample():
    candidates = [Candidate(f"{number}.mp4") for number in range(10)] + [Candidate("5.txt", why="not a video")]
    chosen, result = choose(candidates, None, 4, "natural", 3)
    assert len(chosen) == 5
    assert Candidate("5.txt", why="not a video") in chosen
    assert chosen == sorted(chosen, key=lambda candidate: candidate.path)
    assert result.left_out == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file,x\n1.mp4,y\n", "line 2: has not a file"),
        ("a.jsonl", "[1]\n", "line 1: must be an object"),
        ("a.jsonl", "{\n", "line 1: is not JSON"),
        ("a.txt", "x", "from .csv and .jsonl files only"),
        ("a.csv", None, "there is no such file"),
    ],
)
def test_wrong_labels_name_file_and_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(TimeloomError, match=message):
        read_labels(tmp_path / name)


def test_captions_of_clips(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("clip_id,caption\na, A cat. \nb,A dog.\na,A cat.\n")
    assert read_clip_captions(path) == {"a": "A cat.", "b": "A dog."}
    path.write_text("clip_id,caption\na,A cat.\na,A dog.\n")
    with pytest.raises(TimeloomError, match="line 3: gives clip a a second caption"):
        read_clip_captions(path)


def test_sidecars(folder):
    (folder / "captions.csv").write_text('file,caption\n"a b.mp4","A  cat\njumps."\n')
    (folder / "a b.txt").write_text("not this one")
    (folder / "-dash.txt").write_text(" A dash. \n")
    (folder / "a:b.txt").write_bytes(b"\xff\xfe\xfd")
    found = {c.path: c for c in with_sidecars(list(find_files(folder)), folder)}
    assert found["a b.mp4"].caption == "A cat jumps."
    assert found["-dash.mp4"].caption == "A dash."
    assert found["deep/er/one.MOV"].caption == ""
    assert "is not UTF-8 text" in found["a:b.mp4"].why


def test_parts_share_the_sources_and_keep_copies_together(tmp_path):
    candidates = [Candidate(f"{number}.mp4") for number in range(40)] + [Candidate("x", why="not a video")]
    for number, candidate in enumerate(candidates[:40]):
        (tmp_path / candidate.path).write_bytes(b"x" * (number // 2))
    parts = [[c for c in candidates if in_part(c, tmp_path, part, 3)] for part in range(3)]
    assert sorted(c.path for part in parts for c in part) == sorted(c.path for c in candidates)
    assert all(parts)
    for part in parts:
        names = {candidate.path for candidate in part}
        assert all((f"{2 * n}.mp4" in names) == (f"{2 * n + 1}.mp4" in names) for n in range(1, 20))
