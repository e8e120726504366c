from collections.abc import Callable
from pathlib import Path

import pytest

from timeloom.data.sources import DataOptions, open_sources
from timeloom.data.ucf_101 import caption_of_class, read_ucf_101
from timeloom.errors import TimeloomError

MakeVideo = Callable[..., Path]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Two classes; three clips of two groups to train on, one to test on; Windows line ends."""
    (tmp_path / "classInd.txt").write_bytes(b"1 Fencing\r\n2 PlayingGuitar\r\n")
    (tmp_path / "trainlist01.txt").write_bytes(
        b"Fencing/v_Fencing_g08_c01.avi 1\r\nFencing/v_Fencing_g08_c02.avi 1\r\n"
        b"PlayingGuitar/v_PlayingGuitar_g09_c01.avi 2\r\nDancing/v_Dancing_g01_c01.avi 3\r\n"
    )
    (tmp_path / "testlist01.txt").write_bytes(b"Fencing/v_Fencing_g01_c01.avi\r\n\r\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("Fencing", "A person fencing"),
        ("PlayingGuitar", "A person playing guitar"),
        ("YoYo", "A person yo yo"),
        ("TVWatching", "A person tv watching"),
    ],
)
def test_classes_become_sentences(name: str, caption: str) -> None:
    assert caption_of_class(name) == caption


def test_every_official_class_becomes_words(shared_data: Path) -> None:
    names = [line.split()[1] for line in (shared_data / "text/ucf101/classInd.txt").read_text().splitlines()]
    assert len(names) == 101
    for name in names:
        assert caption_of_class(name).removeprefix("A person ").replace(" ", "") == name.lower()


def test_lists_are_splits_and_groups_stay_together(lists: Path, make_video: MakeVideo) -> None:
    assert read_ucf_101(lists, lists, "test")[0]["caption"].to_pylist() == ["A person fencing"]
    table, ledger = read_ucf_101(lists, lists, None)
    assert table.num_rows == 4 and dict(ledger.reasons) == {"of a class that classInd.txt does not name": 1}
    make_video("videos/Fencing/v_Fencing_g08_c01.avi")
    for name in ("Fencing_g08_c02", "PlayingGuitar_g09_c01", "Fencing_g01_c01"):
        make_video(f"videos/v_{name}.avi")
    data = DataOptions(
        source="ucf-101",
        path=str(lists),
        videos=str(lists / "videos"),
        num_frames=4,
        validation_clips=1,
        allow_drop=True,
    )
    for seed in range(6):
        training, held_out = open_sources(data, seed)
        groups = [{clip.key.rpartition("/")[2][:-8] for clip in part} for part in (training, held_out)]
        assert not groups[0] & groups[1]
        assert len(training) + len(held_out) + training.ledger.reasons["of a video that is held out"] == 4


def test_wrong_files_are_named(lists: Path) -> None:
    with pytest.raises(TimeloomError, match="Did you mean 'train'"):
        read_ucf_101(lists, lists, "trian")
    (lists / "classInd.txt").write_text("Fencing\n")
    with pytest.raises(TimeloomError, match=r"classInd\.txt: each line"):
        read_ucf_101(lists, lists, None)
    (lists / "classInd.txt").unlink()
    with pytest.raises(TimeloomError, match=r"classInd\.txt: there is no such file"):
        read_ucf_101(lists, lists, None)
