from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from timeloom.data import Ledger, Window
from timeloom.data import files as files_module
from timeloom.data.table import Scan, TableSource
from timeloom.errors import TimeloomError

MakeVideo = Callable[..., Path]
WINDOW = Window(num_frames=8, fps=8, height=16, width=16)
TYPES = {"file": pa.large_string(), "caption": pa.large_string(), "start_s": pa.float64(), "end_s": pa.float64()}


def table_of(rows: list[dict]) -> pa.Table:
    names = {name for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table({name: pa.chunked_array([pa.array(cells, TYPES.get(name))]) for name, cells in columns.items()})


def open_table(rows: list[dict], root: Path, scan: Scan = Scan(WINDOW)) -> TableSource:  # noqa: B008
    return TableSource("t", table_of(rows), Ledger(), scan, root)


def test_every_row_is_a_clip_or_counted(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("a.mp4", num_frames=16, height=16, width=32)
    make_video("short.mp4", num_frames=4)
    (tmp_path / "bad.mp4").write_text("no video")
    make_video("p.png")
    names = ["a.mp4", "a.mp4", "short.mp4", "bad.mp4", "gone.mp4", "", "p.png", "./a.mp4"]
    captions = ["A", "A", "S", "B", "G", "N", "P", "  "]
    source = open_table([{"file": f, "caption": c} for f, c in zip(names, captions, strict=True)], tmp_path)
    assert [(clip.key, clip.caption, clip.still) for clip in source] == [("a.mp4", "A", False), ("p.png", "P", True)]
    assert (source[0].width, source[0].height, source[0].fps, source[0].duration_s) == (32, 16, 8, 2)
    assert source.ledger.found == 8 and source.ledger.used == 2
    reasons = dict(source.ledger.reasons)
    assert {reason for reason in reasons if reason.startswith("unreadable: is not a video")}
    for reason in ("listed twice", "no such file", "names no file", "empty caption", "shorter than the window"):
        assert reasons[reason] == 1
    outline = source.outline()
    assert outline.stills.tolist() == [False, True] and outline.widths.tolist() == [32, 16]


def test_captions_of_one_clip_are_clips_of_one_group(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("a.mp4", num_frames=20)
    rows = [
        {"file": "a.mp4", "caption": "one"},
        {"file": "a.mp4", "caption": "two"},
        {"file": "a.mp4", "caption": "three", "start_s": 0.5, "end_s": 1.75},
    ]
    source = open_table(rows, tmp_path)
    assert [clip.key for clip in source] == ["a.mp4", "a.mp4#2", "a.mp4#0.500-1.750"]
    assert len(set(source.outline().groups.tolist())) == 1
    assert source[2].duration_s == 1.25


def test_spans_are_drawn_and_those_beyond_the_file_dropped(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("a.mp4", num_frames=20)
    rows = [{"file": "a.mp4", "caption": "x", "start_s": s, "end_s": e} for s, e in ((0.5, 1.75), (2, 1), (9, 12))]
    source = open_table(rows, tmp_path)
    assert dict(source.ledger.reasons) == {"ends before it begins": 1, "begins after the end of its file": 1}
    levels = source[0].draw(WINDOW, 1.0).mean(axis=(1, 2, 3)) / 8
    assert levels.round().tolist() == list(range(6, 14))


@pytest.mark.parametrize("rule", ["slow", "repeat_last", "loop"])
def test_a_rule_keeps_short_clips(make_video: MakeVideo, tmp_path: Path, rule: str) -> None:
    make_video("short.mp4", num_frames=4)
    source = open_table([{"file": "short.mp4", "caption": "x"}], tmp_path, Scan(WINDOW, rule))  # type: ignore[arg-type]
    assert source[0].draw(WINDOW, 0.5).shape == (8, 16, 16, 3)


def test_many_clips_are_believed_and_measured_when_read(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FEW", 0)
    make_video("a/long.mp4", num_frames=16)
    make_video("a/short.mp4", num_frames=4)
    make_video("lies.mp4", num_frames=4)
    (tmp_path / "bad.mp4").write_text("no video")
    names = ["a/long.mp4", "a/short.mp4", "lies.mp4", "bad.mp4", "a/gone.mp4", "none/gone.mp4"]
    rows = [{"file": f, "caption": "x", "duration_s": d} for f, d in zip(names, [25, 0.5, 25, None, 9, 9], strict=True)]
    source = open_table(rows, tmp_path, Scan(WINDOW, probe_up_to=0))
    assert [clip.key for clip in source] == ["a/long.mp4", "lies.mp4", "bad.mp4"]
    assert dict(source.ledger.reasons) == {"no such file": 2, "shorter than the window": 1}
    assert (source[0].width, source[0].duration_s) == (0, 25) and np.isnan(source[2].duration_s)
    levels = source[0].draw(WINDOW, 1.0).mean(axis=(1, 2, 3)) / 8
    assert levels.round().tolist() == list(range(8, 16))
    with pytest.raises(TimeloomError, match="shorter than the window"):
        source[1].draw(WINDOW, 0.0)
    with pytest.raises(TimeloomError, match="is not a video"):
        source[2].draw(WINDOW, 0.0)


def test_a_big_table_opens_without_an_object_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "FEW", 0)
    many = 200_000
    files = pa.array([f"{i % 7}/{i:07}.mp4" for i in range(many)], pa.large_string())
    captions = pa.array([f"caption {i}" for i in range(many)], pa.large_string())
    table = pa.table({"file": pa.chunked_array([files]), "caption": pa.chunked_array([captions])})
    table = table.append_column("there", pa.array(np.arange(many) % 10 > 0))
    source = TableSource("t", table, Ledger(), Scan(WINDOW), tmp_path)
    assert len(source) == 180_000 and source[0].key == "1/0000001.mp4"
    assert source.ledger.reasons == {"no such file": 20_000} and len(source.ledger.dropped) == 1000
    assert not any(isinstance(value, list | tuple | dict) and len(value) > 1000 for value in vars(source).values())


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TimeloomError, match=r"t: no clip can be used: 1 found, 0 used, 1 dropped \(1 no such file\)"):
        open_table([{"file": "a.mp4", "caption": "x"}], tmp_path)
    with pytest.raises(TimeloomError, match="0 found"):
        TableSource("t", table_of([{"file": "a", "caption": "x"}]).slice(0, 0), Ledger(), Scan(WINDOW), tmp_path)


def test_indices_outside_are_refused(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("a.mp4")
    source = open_table([{"file": "a.mp4", "caption": "x"}], tmp_path)
    for index in (-1, 1):
        with pytest.raises(IndexError):
            source[index]
