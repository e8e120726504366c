from collections.abc import Callable
from pathlib import Path

import pytest

from timeloom.data.sources import DataOptions, open_sources
from timeloom.data.webvid import read_webvid
from timeloom.errors import TimeloomError

MakeVideo = Callable[..., Path]


def test_columns_in_any_order_and_both_layouts(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("videos/000_050/0017.mp4", num_frames=17)
    make_video("videos/42.mp4", num_frames=17)
    (tmp_path / "a.csv").write_text(
        "name,videoid,page_dir,duration,contentUrl,page_idx\r\n"
        '"A cat, jumping.",0017,000_050,PT00H00M02S,https://x/0017.mp4,1\r\n'
        "Flat.,42,000_051,PT1M5.5S,,1\r\nGone.,43,000_051,PT00H00M15S,,1\r\n"
    )
    table, ledger = read_webvid(tmp_path / "a.csv", tmp_path / "videos", None)
    assert table["file"].to_pylist() == ["000_050/0017.mp4", "42.mp4", "000_051/43.mp4"]
    assert table["duration_s"].to_pylist() == [2, 65.5, 15] and ledger.found == 0
    data = DataOptions(
        source="webvid",
        path=str(tmp_path / "a.csv"),
        videos=str(tmp_path / "videos"),
        validation_clips=1,
        allow_drop=True,
    )
    training, held_out = open_sources(data, 0)
    assert {training[0].caption, held_out[0].caption} == {"A cat, jumping.", "Flat."}
    assert training.ledger.summary() == "3 found, 2 used, 1 dropped (1 no such file)"
    assert training[0].draw(data.window, 1.0).shape == (16, 64, 64, 3)


def test_a_folder_of_csvs_with_and_without_durations(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("videoid,name,page_dir,duration\n1,A,p,nonsense\n2,B,p,PT3S\n")
    (tmp_path / "1.csv").write_text("videoid,name\n3,C\n")
    table, _ = read_webvid(tmp_path, tmp_path, None)
    assert table["file"].to_pylist() == ["p/1.mp4", "p/2.mp4", "3.mp4"]
    assert table["duration_s"].to_pylist() == [None, 3, None]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video,name\n1,A\n")
    with pytest.raises(TimeloomError, match="has no column videoid"):
        read_webvid(tmp_path / "a.csv", tmp_path, None)
    with pytest.raises(TimeloomError, match=r"no such file, and no folder of \.csv"):
        read_webvid(tmp_path / "none", tmp_path, None)
