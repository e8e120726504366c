import json
from pathlib import Path

import pytest

from timeloom.data.msr_vtt import read_msr_vtt
from timeloom.errors import TimeloomError

CONTENT = {
    "videos": [
        {"video_id": "video0", "category": 9, "url": "u", "start time": 1.0, "end time": 9.0, "split": "train"},
        {"video_id": "video7010", "category": 9, "url": "u", "start time": 1.0, "end time": 9.0, "split": "test"},
    ],
    "sentences": [
        {"sen_id": 0, "video_id": "video0", "caption": "a cat jumps"},
        {"sen_id": 1, "video_id": "video0", "caption": "a jumping cat"},
        {"sen_id": 2, "video_id": "video7010", "caption": "a man sings"},
        {"sen_id": 3, "video_id": "video1", "caption": "nobody knows"},
        {"sen_id": 4, "video_id": "video0", "caption": None},
    ],
}


def test_every_sentence_of_a_split_is_a_clip_of_its_video(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    table, ledger = read_msr_vtt(tmp_path / "a.json", tmp_path, None)
    assert table.to_pylist() == [
        {"key": "video0/0", "file": "video0.mp4", "caption": "a cat jumps"},
        {"key": "video0/1", "file": "video0.mp4", "caption": "a jumping cat"},
    ]
    assert dict(ledger.reasons) == {"sentence about a video that is not listed": 1, "caption that is no text": 1}
    assert read_msr_vtt(tmp_path, tmp_path, "test")[0]["key"].to_pylist() == ["video7010/2"]
    assert read_msr_vtt(tmp_path, tmp_path, "all")[0].num_rows == 3


def test_wrong_splits_and_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    with pytest.raises(TimeloomError, match=r"Unknown split.*Did you mean 'test'"):
        read_msr_vtt(tmp_path / "a.json", tmp_path, "tset")
    for content, complaint in (
        ("{", "is not JSON"),
        ("[]", "is not MSR-VTT's JSON"),
        ('{"videos": 3}', "is not MSR-VTT's"),
    ):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(TimeloomError, match=complaint):
            read_msr_vtt(tmp_path / "b.json", tmp_path, None)


def test_a_list_of_one_split_is_read_as_that_split(tmp_path: Path) -> None:
    rows = [{"video": "video7010.mp4", "caption": ["a man sings", "singing"]}, {"video": "v.mp4", "caption": ["a dog"]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    table, _ = read_msr_vtt(tmp_path / "a.json", tmp_path, "test")
    assert table["key"].to_pylist() == ["video7010/0", "video7010/1", "v/0"]
    assert table["file"].to_pylist() == ["video7010.mp4", "video7010.mp4", "v.mp4"]
    (tmp_path / "a.json").write_text(json.dumps([{"video": "v.mp4", "caption": "a dog"}]))
    with pytest.raises(TimeloomError, match="is not MSR-VTT's JSON"):
        read_msr_vtt(tmp_path / "a.json", tmp_path, "test")
