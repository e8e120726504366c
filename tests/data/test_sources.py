from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from timeloom.data import write_video
from timeloom.data.command import main
from timeloom.data.sources import DataOptions, open_sources
from timeloom.errors import TimeloomError


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
