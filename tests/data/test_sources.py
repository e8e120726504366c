import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from timeloom.data import write_image, write_video
from timeloom.data.command import main
from timeloom.data.order import Order
from timeloom.data.sources import DataOptions, describe_sources, open_sources
from timeloom.errors import TimeloomError
from timeloom.schema import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six clips of 2 s with sidecar captions."""
    for i in range(6):
        frames = np.full((16, 32, 48, 3), 40 * i, dtype=np.uint8)
        write_video(tmp_path / f"clip{i}.mp4", frames, fps=8)
        (tmp_path / f"clip{i}.txt").write_text(f"shade {i}", encoding="utf-8")
    return tmp_path


def test_a_folder_is_split_without_overlap_and_the_same_way_every_time(folder: Path) -> None:
    data = DataOptions(source="folder", path=str(folder), validation_clips=2)
    training, held_out = open_sources(data, seed=0)
    keys = [clip.key for part in (training, held_out) for clip in (part[i] for i in range(len(part)))]
    assert len(training) == 4 and len(held_out) == 2 and len(set(keys)) == 6
    again = open_sources(data, seed=0)
    assert [again[1][i].key for i in range(2)] == [held_out[i].key for i in range(2)]


def test_too_few_clips_say_so(folder: Path) -> None:
    with pytest.raises(TimeloomError, match=r"6 found.*held out"):
        open_sources(DataOptions(source="folder", path=str(folder), validation_clips=6), seed=0)


def test_a_folder_source_needs_a_folder() -> None:
    with pytest.raises(ValidationError, match=r"data\.path"):
        DataOptions(source="folder")


def test_view_draws_a_sheet_and_reports(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(folder), "--output", str(tmp_path / "sheet.png"), "--json", "--clips", "3"]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert '"found": 6' in capsys.readouterr().out
    with pytest.raises(TimeloomError, match="overwrite"):
        main(["view", str(folder), "--output", str(tmp_path / "sheet.png")])


@pytest.mark.parametrize("words", [["veiw"], ["view", "digits/video_shfit"], ["view", "digits", "--split", "tset"]])
def test_misspellings_get_the_nearest_name(words: list[str], tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "sheet.png")] if words[0] == "view" else []
    with pytest.raises(TimeloomError, match="Did you mean"):
        main([*words, *output])


def describe(data: DataOptions) -> list[str]:
    return describe_sources(data, *open_sources(data, 0))


def test_several_sources_are_mixed_and_each_is_reported(folder: Path) -> None:
    rows = "".join(f"clip{i}.mp4,again {i}\n" for i in range(4)) + "gone.mp4,G\n"
    (folder / "some.csv").write_text("file,caption\n" + rows)
    chosen = [
        {"source": "folder", "path": str(folder), "weight": 2},
        {"source": "csv", "path": str(folder / "some.csv")},
        {"source": "digits", "weight": 0.5},
    ]
    data = DataOptions.model_validate({"sources": chosen, "validation_clips": 3})
    training, held_out = open_sources(data, 0)
    assert len(held_out) == 3 and len(training) == 4 + 3 + 1_000_000
    assert describe_sources(data, training, held_out) == [
        f"folder {folder}: 6 found, 6 used, 0 dropped; weight 2",
        f"csv {folder / 'some.csv'}: 5 found, 4 used, 1 dropped (1 no such file); weight 1",
        "digits: 1000000 found, 1000000 used, 0 dropped; weight 0.5",
        "clips: 1,000,007 to train on, 3 held out",
    ]
    origins = [training[Order(training, data.window, 0, 7)(n).index].origin for n in range(14)]
    assert sum(origin.startswith("digits") for origin in origins) == 2
    assert [clip.caption.split()[0] for clip in (held_out[0], held_out[2])] == ["shade", "again"]


def test_a_style_is_that_of_every_clip_of_its_source() -> None:
    style = {"colours": ["red", "pink"], "backgrounds": ["white"]}
    data = DataOptions.model_validate({**style, "validation_clips": 8})
    training, held_out = open_sources(data, 0)
    for part in (training, held_out):
        clips = [part[i] for i in range(8)]
        assert {clip.attributes["colour"] for clip in clips} == {"red", "pink"}
        assert {clip.attributes["background"] for clip in clips} == {"white"}
    assert describe(data)[0].startswith("digits in red, pink on white: 1000000 found")
    mixed = DataOptions.model_validate({"sources": [style, {"colours": ["blue"]}], "validation_clips": 4})
    training, _ = open_sources(mixed, 0)
    order = Order(training, mixed.window, 0, 4)
    assert [training[order(n).index].attributes["colour"] == "blue" for n in range(4)].count(True) == 2


def test_dropping_many_needs_a_word(folder: Path) -> None:
    for i in range(2):
        (folder / f"clip{i}.txt").unlink()
    data = DataOptions(source="folder", path=str(folder), validation_clips=1)
    with pytest.raises(
        TimeloomError, match=r"2 of 6 clips found would be dropped, more than 20%: 2 no caption \(clip0"
    ):
        open_sources(data, 0)
    allowed = data.model_copy(update={"allow_drop": True})
    assert "6 found, 4 used, 2 dropped (2 no caption)" in describe(allowed)[0]
    assert allowed.model_dump() == data.model_dump()  # the same run, so it can be resumed


def test_clips_of_a_held_out_video_are_not_trained_on(folder: Path) -> None:
    rows = [f"clip{i}.mp4,{word} {i}" for i in range(6) for word in ("one", "two")]
    (folder / "some.csv").write_text("\n".join(["file,caption", *rows]))
    for seed in range(4):
        data = DataOptions(source="csv", path=str(folder / "some.csv"), validation_clips=2)
        training, held_out = open_sources(data, seed)
        origins = [{clip.origin for clip in part} for part in (training, held_out)]  # type: ignore[attr-defined]
        assert not origins[0] & origins[1] and len(training) == 8 and len(held_out) == 2
        assert training.ledger.reasons == {"of a video that is held out": 2}
    data = DataOptions(source="csv", path=str(folder / "some.csv"), validation_clips=7)
    training, held_out = open_sources(data, 0)
    assert (len(training), len(held_out)) == (5, 7)


def test_pictures_are_never_held_out_of_video_training(folder: Path) -> None:
    for i in range(4):
        write_image(folder / f"p{i}.png", np.full((32, 32, 3), 50 * i, np.uint8))
        (folder / f"p{i}.txt").write_text(f"picture {i}")
    both = [{"source": name, "path": str(folder)} for name in ("images", "folder")]
    data = DataOptions.model_validate({"sources": both, "validation_clips": 2})
    training, held_out = open_sources(data, 0)
    assert [clip.still for clip in held_out] == [False, False]  # type: ignore[attr-defined]
    assert training.outline().stills.sum() == 4
    images = {"source": "images", "path": str(folder), "validation_clips": 1}
    with pytest.raises(TimeloomError, match="all clips are pictures"):
        open_sources(DataOptions.model_validate(images), 0)
    training, held_out = open_sources(DataOptions.model_validate({**images, "num_frames": 1}), 0)
    assert (len(training), len(held_out)) == (3, 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"source": "foldr"}, "Did you mean 'folder'"),
        ({"source": "webvid"}, r"data\.path.*source: webvid"),
        ({"sources": [{"source": "csv", "pth": "x"}]}, "Unknown option 'pth'. Did you mean 'path'"),
        ({"sources": [{"source": "csv", "path": "x", "weight": 0}]}, "greater than 0"),
        ({"source": "csv", "path": "x", "sources": [{"source": "digits"}]}, "give one of them"),
        ({"buckets": [[64, 60]]}, "multiples of 8"),
        ({"colours": ["red", "geen"]}, "Unknown colour 'geen'. Did you mean 'green'"),
        ({"source": "folder", "path": "x", "backgrounds": ["black"]}, "are for `source: digits`, not folder"),
        ({"sources": [{"backgrounds": ["balck"]}]}, "Did you mean 'black'"),
        ({"short_clips": "stretch"}, "short_clips"),
    ],
)
def test_wrong_options_say_so(options: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DataOptions.model_validate(options)


def test_an_unknown_key_of_a_source_is_named_in_a_recipe(tmp_path: Path) -> None:
    raw = {"sources": [{"source": "digits", "wieght": 2}]}
    with pytest.raises(TimeloomError, match=r"a\.yaml: sources: .*Did you mean 'weight'"):
        check(DataOptions, raw, tmp_path / "a.yaml")


def test_view_shows_what_every_source_holds(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hdvg_0.json").write_text(
        '{"clip%d": {"clip": {"clip0.0.mp4": {"span": ["00:00:00.000", "00:00:02.000"], "fps": 8, "scene_split":'
        ' [{"clip_id": "clip0", "scene_cut": [0, -1], "caption": "zero"},'
        ' {"clip_id": "clip1", "scene_cut": [0, -1], "caption": "one"}]}}}}'
    )
    (folder / "webvid.csv").write_text("videoid,name\n" + "".join(f"clip{i},w{i}\n" for i in range(6)))
    (folder / "long.jsonl").write_text(
        "".join(f'{{"file": "clip{i}.mp4", "caption": "{"c" * 10_000}"}}\n' for i in range(6))
    )
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for path in sorted([*folder.glob("*.mp4"), *folder.glob("*.txt")]):
            tar.add(path, path.name)
    recipe = tmp_path / "recipe.yaml"
    for source, path in (
        ("hd-vg-130m", "hdvg_0.json"),
        ("webvid", "webvid.csv"),
        ("jsonl", "long.jsonl"),
        ("webdataset", "shard.tar"),
    ):
        data = {"source": source, "path": str(folder / path), "validation_clips": 1, "buckets": 4096, "num_frames": 4}
        recipe.write_text(json.dumps({"task": "video", "data": data}))
        output = tmp_path / f"{source}.png"
        assert main(["view", str(recipe), "--output", str(output), "--clips", "3"]) == 0
        assert output.read_bytes().startswith(b"\x89PNG")
        assert f"{source} {folder / path}: " in capsys.readouterr().out
