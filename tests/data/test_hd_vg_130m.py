import json
from collections.abc import Callable
from pathlib import Path

import pytest

from timeloom.data import Ledger, Window
from timeloom.data.hd_vg_130m import read_hd_vg_130m
from timeloom.data.table import Scan, TableSource

MakeVideo = Callable[..., Path]
WINDOW = Window(num_frames=4, fps=8, height=16, width=16)


def scene(number: int, start: object, end: object, caption: object = "a scene") -> dict[str, object]:
    return {"clip_id": f"v.3_{number}", "scene_cut": [start, end], "caption": caption}


def written(folder: Path, scenes: list[dict[str, object]], **changes: object) -> Path:
    clip = {"span": ["00:00:01.000", "00:00:04.000"], "fps": 8, "scene_split": scenes, **changes}
    (folder / "hdvg_0.json").write_text(json.dumps({"v": {"url": "u", "clip": {"v.3.mp4": clip}}}))
    return folder / "hdvg_0.json"


def opened(path: Path) -> TableSource:
    table, ledger = read_hd_vg_130m(path, path.parent, None)
    return TableSource("t", table, ledger, Scan(WINDOW), path.parent)


def levels(source: TableSource, index: int, start: float) -> list[float]:
    return (source[index].draw(WINDOW, start).mean(axis=(1, 2, 3)) / 8).round().tolist()


def test_a_scene_of_an_hd_vila_clip_is_the_frames_between_its_cuts(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("v.3.mp4", num_frames=24)
    source = opened(written(tmp_path, [scene(0, "0", "8"), scene(1, 8, 20), scene(2, 0, -1)]))
    assert [clip.key for clip in source] == ["v.3_0", "v.3_1", "v.3_2"]
    assert (levels(source, 0, 0.0), levels(source, 0, 1.0)) == ([1, 2, 3, 4], [4, 5, 6, 7])
    assert (levels(source, 1, 0.0), levels(source, 1, 1.0)) == ([9, 10, 11, 12], [16, 17, 18, 19])
    assert (levels(source, 2, 0.0), levels(source, 2, 1.0)) == ([0, 1, 2, 3], [20, 21, 22, 23])
    assert len(set(source.outline().groups.tolist())) == 1


def test_a_video_is_cut_a_frame_inside_both_ends(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("v.mp4", num_frames=40)
    source = opened(written(tmp_path, [scene(0, 0, 12), scene(1, 0, -1)]))
    assert (levels(source, 0, 0.0), levels(source, 0, 1.0)) == ([10, 11, 12, 13], [15, 16, 17, 18])
    assert (levels(source, 1, 0.0), levels(source, 1, 1.0)) == ([9, 10, 11, 12], [27, 28, 29, 30][:4])


def test_the_scenes_own_file_comes_first(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("v.3.mp4", num_frames=24)
    make_video("v.3_1.mp4", num_frames=8)
    source = opened(written(tmp_path, [scene(0, 0, 8), scene(1, 8, 20)]))
    assert source[1].origin.endswith("v.3_1.mp4") and source[1].duration_s == 1
    assert levels(source, 1, 0.0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("scenes", "changes", "reason"),
    [
        ([scene(0, 0, "x")], {}, "scene without a clip_id, scene_cut or caption"),
        ([scene(0, 0, 9, None)], {}, "scene without a clip_id, scene_cut or caption"),
        ([scene(0, 0, float("inf"))], {}, "scene without a clip_id, scene_cut or caption"),
        ([scene(0, 0, 10**400)], {}, "scene without a clip_id, scene_cut or caption"),
        ([scene(0, 0, 9)], {"span": ["9" * 400 + ":00:00", "0:00:01"]}, "clip without a span, fps or scene_split"),
        ([scene(0, 0, 9)], {"fps": 0}, "clip without a span, fps or scene_split"),
        ([scene(0, 0, 9)], {"span": ["now", "then"]}, "clip without a span, fps or scene_split"),
        (None, {}, "clip without a span, fps or scene_split"),
    ],
)
def test_what_does_not_parse_is_counted(tmp_path: Path, scenes: list, changes: dict, reason: str) -> None:
    _, ledger = read_hd_vg_130m(written(tmp_path, scenes, **changes), tmp_path, None)
    assert isinstance(ledger, Ledger) and dict(ledger.reasons) == {reason: 1} and ledger.found == 1
