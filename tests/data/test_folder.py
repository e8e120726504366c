import json
from pathlib import Path

import numpy as np
import pytest

from timeloom.data.clip import Window
from timeloom.data.folder import FolderSource
from timeloom.data.video import read_video
from timeloom.data.write import write_video
from timeloom.errors import TimeloomError

WINDOW = Window(num_frames=8, fps=8, height=16, width=16)


def grey_levels(num_frames: int) -> np.ndarray:
    return np.full((num_frames, 32, 48, 3), 8, np.uint8) * np.arange(num_frames, dtype=np.uint8)[:, None, None, None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos in two folders: 2 s, 2 s and 0.5 s at 8 frames a second."""
    for name, num_frames in (("b.mp4", 16), ("a/c.webp", 16), ("a/short.mp4", 4)):
        write_video(tmp_path / name, grey_levels(num_frames))
    return tmp_path


def test_sidecars_caption_the_videos_in_sorted_order(folder: Path) -> None:
    for name in ("b", "a/c", "a/short"):
        (folder / f"{name}.txt").write_text(f"The video {name}.\n")
    source = FolderSource(folder)
    assert [clip.key for clip in source] == ["a/c.webp", "a/short.mp4", "b.mp4"]
    clip = source[2]
    assert (clip.caption, clip.width, clip.height, clip.fps) == ("The video b.", 48, 32, 8)
    assert clip.origin == str(folder / "b.mp4") and clip.duration_s == pytest.approx(2)
    assert source.ledger.summary() == "3 found, 3 used, 0 dropped"


@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl", "index.jsonl"])
def test_everything_left_out_is_counted_with_its_reason(folder: Path, name: str) -> None:
    (folder / "bad.mp4").write_text("not a video")
    (folder / "silent.mp4").write_bytes((folder / "b.mp4").read_bytes())
    (folder / "other.gif").write_bytes((folder / "b.mp4").read_bytes())
    rows = [("b.mp4", "B"), ("./a/c.webp", "C"), ("a/short.mp4", "S"), ("bad.mp4", "X"), ("gone.mp4", "G")]
    rows += [("silent.mp4", " "), ("b.mp4", "B again")]
    (folder / name).write_text("".join(json.dumps({"file": f, "caption": c}) + "\n" for f, c in rows))
    source = FolderSource(folder, window=WINDOW)
    assert [(clip.key, clip.caption) for clip in source] == [("a/c.webp", "C"), ("b.mp4", "B")]
    dropped = {Path(item).name: reason for item, reason in source.ledger.dropped}
    assert dropped.pop("bad.mp4").startswith("unreadable: is not a video")
    assert dropped == {
        "gone.mp4": "listed with a caption, but no such video",
        "silent.mp4": "empty caption",
        "other.gif": "no caption",
        "short.mp4": "shorter than the window",
        f"{name}, line 7": "further caption of the same video",
    }
    assert (source.ledger.found, source.ledger.used) == (8, 2)


def test_a_caption_file_of_ones_own(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "captions.csv").write_text("file,caption\nb.mp4,ignored\n")
    own = tmp_path_factory.mktemp("captions") / "mine.csv"
    own.write_text(f"text,video\nB,b.mp4\nC,{folder}/a/c.webp\n")
    assert {clip.key: clip.caption for clip in FolderSource(folder, own)} == {"b.mp4": "B", "a/c.webp": "C"}


def test_start_places_the_window_between_the_ends(folder: Path) -> None:
    (folder / "captions.csv").write_text("file,caption\nb.mp4,B\na/c.webp,C\n")
    for clip in FolderSource(folder, window=WINDOW):
        for start, first in ((0.0, 0), (0.5, 4), (1.0, 8)):
            frames = clip.draw(WINDOW, start)
            assert frames.shape == (8, 16, 16, 3) and frames.dtype == np.uint8
            levels = frames.astype(float).mean(axis=(1, 2, 3)) / 8
            assert levels == pytest.approx(np.arange(first, first + 8), abs=0.3)
        middle = clip.draw(WINDOW, 0.5)
        assert np.array_equal(middle, read_video(clip.origin, 8, 8, start_s=0.5, height=16, width=16))


def test_folders_without_clips_are_errors(folder: Path) -> None:
    with pytest.raises(TimeloomError, match="there is no such folder"):
        FolderSource(folder / "none")
    with pytest.raises(TimeloomError, match=r"no clip can be used: 3 found, 0 used, 3 dropped \(3 no caption\)"):
        FolderSource(folder)


def test_real_clips(shared_data: Path) -> None:
    window = Window(num_frames=16, fps=8, height=64, width=64)
    source = FolderSource(shared_data / "clips", window=window)
    assert source.ledger.found == 162
    assert len(source) == source.ledger.used > 100
    assert {reason for _, reason in source.ledger.dropped} <= {"shorter than the window"}
    for index in range(0, len(source), 10):
        assert source[index].draw(window, 1.0).shape == (16, 64, 64, 3)
