import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from timeloom.data import read_video, write_image, write_video
from timeloom.errors import TimeloomError
from timeloom.studio import browse
from timeloom.studio.browse import Shelf, open_collection, render


def grey(*values, size=16):
    """Frames uint8 (F, size, size, 3), each of one grey."""
    return np.stack([np.full((size, size, 3), value, np.uint8) for value in values])


def shown(collection, number, tmp_path):
    """What a browser gets of an item, decoded."""
    content, kind = render(collection, number)
    file = tmp_path / f"shown.{kind.rpartition('/')[2]}"
    file.write_bytes(content)
    return read_video(file)


@pytest.fixture()
def curated(tmp_path):
    """Two seconds of a video at 8 fps whose frames grow brighter, cut in two clips and one that is dropped."""
    videos = tmp_path / "videos"
    write_video(videos / "sub/a.mp4", grey(*range(0, 240, 15), size=32), fps=8)
    columns = ("source", "start_s", "end_s", "caption", "kept", "reasons")
    rows = [
        ("sub/a.mp4", 0.0, 1.0, "dark", True, []),
        ("sub/a.mp4", 1.0, 2.0, "bright", True, []),
        ("sub/a.mp4", 0.5, 0.625, "", False, ["short", "dull"]),
        ("sub/gone.mp4", 0.0, 1.0, "x", False, ["short"]),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(rows).append_column("motion", pa.array([0.5, 1.0, 0.0, None]))
    (tmp_path / "dataset").mkdir()
    pq.write_table(table.replace_schema_metadata({"timeloom.videos": str(videos)}), tmp_path / "dataset/clips.parquet")
    return tmp_path / "dataset"


def test_a_curated_set_shows_what_was_dropped_and_why(curated):
    collection = open_collection(curated)
    assert collection.groups == {"all": 4, "kept": 2, "dropped": 2, "short": 2, "dull": 1}
    assert [list(collection.numbers(group)) for group in ("all", "kept", "dropped", "short", "dull", "other")] == [
        [0, 1, 2, 3], [0, 1], [2, 3], [2, 3], [2], [],
    ]  # fmt: skip
    item = collection.item(2)
    assert item.reasons == ("short", "dull")
    assert item.title == "(no caption) a.mp4"
    assert item.facts == "0.50–0.62 s · motion 0"
    assert collection.item(0).title == "dark"


def test_a_curated_clip_is_its_span_of_the_source(curated, tmp_path):
    collection = open_collection(curated)
    first, second, short = (shown(collection, number, tmp_path) for number in range(3))
    assert (len(first), len(second), len(short)) == (8, 8, 1)
    assert np.abs(first[:, 16, 16, 0].astype(int) - np.arange(0, 120, 15)).max() <= 4
    assert np.abs(second[:, 16, 16, 0].astype(int) - np.arange(120, 240, 15)).max() <= 4
    with pytest.raises(TimeloomError, match=r"gone\.mp4: there is no such file"):
        render(collection, 3)


def test_a_clip_of_a_moment_plays_with_all_its_frames(tmp_path):
    write_video(tmp_path / "videos/a.mp4", grey(*range(0, 240, 10), size=32), fps=24)
    rows = [
        {"source": "a.mp4", "start_s": 0.5, "end_s": end_s, "caption": "", "kept": False, "reasons": ["short"]}
        for end_s in (0.5 + 4 / 24, 0.5 + 1 / 24)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"timeloom.videos": str(tmp_path / "videos")})
    (tmp_path / "dataset").mkdir()
    pq.write_table(table, tmp_path / "dataset/clips.parquet")
    collection = open_collection(tmp_path / "dataset")
    four, one = (shown(collection, number, tmp_path) for number in range(2))
    assert np.abs(four[:, 16, 16, 0].astype(int) - np.arange(120, 160, 10)).max() <= 4
    assert len(one) == 1
    assert render(collection, 1)[1] == "video/mp4"


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "clips.parquet").write_bytes(b"no table")
    with pytest.raises(TimeloomError, match="cannot be read as a Parquet table"):
        open_collection(tmp_path)
    pq.write_table(pa.table({"source": ["a.mp4"]}), tmp_path / "clips.parquet")
    with pytest.raises(TimeloomError, match="has no column 'start_s'"):
        open_collection(tmp_path)


def test_an_evaluation_shows_its_clips_with_what_is_wrong(tmp_path):
    (tmp_path / "clips").mkdir()
    for index, value in enumerate((10, 200)):
        np.savez_compressed(tmp_path / f"clips/{index:05d}.npz", frames=grey(value, value), prompt=f"prompt {index}")
    wrong = {"motion": {"asked": "left", "seen": "spin"}}
    result = {"protocol": {"fps": 4}, "failures": [{"index": 1, "prompt": "prompt 1", "wrong": wrong}]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    collection = open_collection(tmp_path)
    assert collection.groups == {"all": 2, "kept": 1, "dropped": 1, "wrong motion": 1}
    assert collection.numbers("wrong motion") == [1]
    item = collection.item(1)
    assert (item.title, item.reasons, item.facts) == ("prompt 1", ("wrong motion",), "motion: asked left, seen spin")
    assert abs(int(shown(collection, 1, tmp_path)[0, 8, 8, 0]) - 200) <= 3
    (tmp_path / "clips/00001.npz").write_bytes(b"no archive")
    with pytest.raises(TimeloomError, match=r"00001\.npz: is damaged"):
        collection.item(1)


def test_a_training_run_shows_its_previews_newest_first(tmp_path):
    for samples in (64, 1024):
        write_image(tmp_path / f"previews/{samples:012d}.png", grey(samples % 251)[0])
    collection = open_collection(tmp_path)
    assert [collection.item(i).title for i in range(2)] == ["after 1,024 samples", "after 64 samples"]
    assert collection.item(0).picture
    assert shown(collection, 1, tmp_path)[0, 0, 0, 0] == 64


def test_any_folder_of_videos_tells_what_it_knows(tmp_path):
    write_video(tmp_path / "made.mp4", grey(0, 0), metadata={"prompt": "a red seven", "seed": "3"})
    write_video(tmp_path / "sub/told.mp4", grey(0, 0))
    (tmp_path / "sub/told.txt").write_text("a cat\n")
    (tmp_path / "empty.mp4").touch()
    write_image(tmp_path / "wide.png", np.zeros((10, 4000, 3), np.uint8))
    collection = open_collection(tmp_path)
    items = [collection.item(number) for number in collection.numbers("all")]
    assert [item.title for item in items] == ["empty.mp4", "a red seven", "a cat", "wide.png"]
    assert "is empty" in items[0].facts
    assert items[1].facts == "made.mp4 · seed 3"
    content, kind = render(collection, 3)
    assert kind == "image/png"
    assert Image.open(io.BytesIO(content)).size == (browse.PICTURE_PX, 4)


def test_a_long_large_video_is_shown_short_and_small(tmp_path):
    write_video(tmp_path / "videos/a.mp4", np.zeros((80, 90, 640, 3), np.uint8), fps=16)
    assert shown(open_collection(tmp_path / "videos"), 0, tmp_path).shape == (32, 44, 320, 3)


def test_a_folder_with_nothing_to_look_at_is_refused(tmp_path):
    with pytest.raises(TimeloomError, match="no such folder"):
        open_collection(tmp_path / "gone")
    with pytest.raises(TimeloomError, match="holds no video"):
        open_collection(tmp_path)


def test_a_shelf_hands_out_only_what_it_opened(curated, monkeypatch):
    shelf = Shelf({"set": curated})
    with pytest.raises(TimeloomError, match="Unknown folder '/etc'"):
        shelf.open("/etc")
    key, _ = shelf.open("set")
    assert shelf.draw(key, 0)[1] == "video/mp4"
    assert shelf.draw(key, 0) is shelf.draw(key, 0)
    assert shelf.draw(key, 4) is shelf.draw(key, -1) is shelf.draw(key + 1, 0) is None
    monkeypatch.setattr(browse, "MOST_OPEN", 1)
    shelf.open("set")
    assert shelf.draw(key, 0) is None
