"""Which videos are measured, which are not and why: named, counted, never averaged away."""

import pytest

from timeloom.data import write_video
from timeloom.errors import TimeloomError
from timeloom.evaluate.prompt_sets import Prompt
from timeloom.evaluate.video_sets import (
    add_texts,
    drop_doubles,
    find_videos,
    inspect,
    listed_videos,
    match_prompts,
    take,
)


@pytest.fixture
def folder(tmp_path, colours):
    for (text, clip), name in zip(colours(4), ("a", "b", "c", "d"), strict=True):
        write_video(tmp_path / "videos" / f"{name}.mp4", clip, 8, {"prompt": text})
    return tmp_path / "videos"


def test_copies_and_broken_files_are_missing_with_a_reason(folder):
    (folder / "more").mkdir()
    (folder / "more" / "copy.mp4").write_bytes((folder / "b.mp4").read_bytes())
    (folder / "broken.mp4").write_bytes((folder / "c.mp4").read_bytes()[:300])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    videos = find_videos(folder, "fake")
    assert videos.asked == 7
    drop_doubles(videos)
    inspect(videos)
    assert list(videos.files) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"] and videos.asked == 7
    assert videos.missing["more/copy.mp4"] == "the same file as b.mp4"
    assert videos.missing["broken.mp4"].startswith("holds no video stream") and "0 bytes" in videos.missing["empty.mp4"]
    assert dict(videos.shapes) == {"32x32, 16 frames, 8 fps": 4}


def test_unequal_sizes_and_lengths_are_counted(folder, colours):
    clip = colours(1, seed=1)[0][1]
    write_video(folder / "short.mp4", clip[:9, :16], 4)
    videos = find_videos(folder, "fake")
    inspect(videos)
    assert dict(videos.shapes) == {"32x32, 16 frames, 8 fps": 4, "32x16, 9 frames, 4 fps": 1}


def test_videos_of_a_list(folder):
    videos = listed_videos(folder, ["b.avi", "c.mp4", "z.mp4"], "real")
    assert [path.name for path in videos.files.values()] == ["b.mp4", "c.mp4"]
    assert videos.missing == {"z.mp4": "no such file"} and sorted(videos.left_out) == ["a.mp4", "d.mp4"]


def test_prompts_are_known_from_the_first_that_tells(folder):
    (folder / "captions.csv").write_text("file,caption\na.mp4,from the list\n")
    (folder / "b.txt").write_text("from beside it\n")
    (folder / "c.mp4").rename(folder / "a red/blue thing-3.mp4".replace("/", " "))
    videos = find_videos(folder, "fake")
    add_texts(videos, folder)
    assert videos.texts == {
        "a.mp4": "from the list",
        "b.mp4": "from beside it",
        "a red blue thing-3.mp4": "a blue wall 2",  # what Timeloom wrote into it goes before the name
        "d.mp4": "a red wall 3",
    }


def test_names_in_vbenchs_style(tmp_path, colours):
    names = ["A cat, slow motion-0.mp4", "A cat, slow motion-1.mp4", "a dog.-0.mp4", "unnamed.mp4"]
    for (_, clip), name in zip(colours(4), names, strict=True):
        write_video(tmp_path / name, clip, 8)
    videos = find_videos(tmp_path, "fake")
    add_texts(videos, tmp_path)
    prompts = [Prompt(0, "A cat, slow motion", None), Prompt(1, "a dog.", None), Prompt(2, "a bird", None)]
    matched = match_prompts(videos, prompts)
    assert sorted(matched.files) == ["A cat, slow motion-0.mp4", "a dog.-0.mp4"]
    assert matched.missing == {"prompt 2: a bird": "no video was made for it"} and matched.asked == 3
    assert sorted(matched.left_out) == ["A cat, slow motion-1.mp4", "unnamed.mp4"]


def test_of_more_some_are_taken_by_name(folder):
    chosen = []
    for _ in range(2):
        videos = find_videos(folder, "real")
        take(videos, 2, seed=0)
        chosen.append(list(videos.files))
        assert len(videos.left_out) == 2 and videos.asked == 2
    assert chosen[0] == chosen[1]


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(TimeloomError, match="there is no video in it"):
        find_videos(tmp_path, "real")
