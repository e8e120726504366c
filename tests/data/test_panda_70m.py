import csv
from collections.abc import Callable
from pathlib import Path

from timeloom.data.panda_70m import read_panda_70m

MakeVideo = Callable[..., Path]


def written(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    with (folder / "panda.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "videoID", "caption", "timestamp", "matching_score"])
        writer.writerows([("https://y", video, captions, times, "[0.4]") for video, times, captions in rows])
    return folder / "panda.csv"


def test_clips_are_files_of_their_own_or_spans_of_the_video(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("a.1.mp4")
    make_video("a.mp4")
    times, captions = "[['0:00:05.639', '0:00:15.649'], ['1:02:03.5', '1:02:04.0']]", "['It\\'s one.', 'Two.']"
    path = written(tmp_path, [("a", times, captions)])
    table, ledger = read_panda_70m(path, tmp_path, None)
    assert table.select(["file", "caption", "start_s", "end_s", "there"]).to_pylist() == [
        {"file": "a.mp4", "caption": "It's one.", "start_s": 5.639, "end_s": 15.649, "there": True},
        {"file": "a.1.mp4", "caption": "Two.", "start_s": 0, "end_s": None, "there": True},
    ]
    assert table["group"].to_pylist() == ["a", "a"] and ledger.found == 0


def test_lists_are_values_and_never_code(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    code = f"[open({str(touched)!r}, 'w')]"
    rows = [
        ("a", code, "['x']"),
        ("b", "[['0:00:01.0', '0:00:02.0']]", code),
        ("c", "[['0:00:01.0', '0:00:02.0']]", "['x', 'y']"),
        ("d", "[['soon', '0:00:02.0']]", "['x']"),
        ("e", "(" * 5000, "['x']"),
        ("f", "[['0:00:01.0', '0:00:02.0']]", "[3]"),
    ]
    table, ledger = read_panda_70m(written(tmp_path, rows), tmp_path, None)
    assert table.num_rows == 0 and not touched.exists()
    assert dict(ledger.reasons) == {
        "row whose timestamp and caption are not two lists of one length": 5,
        "caption that is no text": 1,
    }
