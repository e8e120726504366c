"""The frames that a protocol sees, and reading them ahead."""

import os

import numpy as np
import pytest

from timeloom.data import write_video
from timeloom.errors import TimeloomError
from timeloom.evaluate.windows import ReadWindow, read_ahead


@pytest.fixture
def video(tmp_path):
    """40 frames at 8 a second; frame i is as bright as i tells."""
    path = tmp_path / "bright.webp"
    write_video(
        path, np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(24, 2).repeat(3, 3) * 5, 8
    )
    return path


def first(frames):
    return int(frames[0, 0, 0, 0]) // 5


def test_a_window_lies_where_the_protocol_says(video):
    read = {place: ReadWindow(16, 8.0, None, None, place) for place in ("start", "middle", "random")}
    assert [first(read[place](video)) for place in ("start", "middle")] == [0, 12]
    assert read["start"](video).shape == (16, 16, 24, 3)
    assert ReadWindow(4, 2.0, 8, 8)(video)[:, 0, 0, 0].tolist() == [0, 20, 40, 60]
    assert first(read["random"](video)) == first(read["random"](video))


def test_a_random_place_depends_on_the_seed_and_the_content_and_not_on_the_name(video, tmp_path):
    starts = [first(ReadWindow(16, None, None, None, "random", seed)(video)) for seed in range(12)]
    assert len(set(starts)) > 4 and min(starts) >= 0 and max(starts) <= 24
    moved = tmp_path / "elsewhere.webp"
    moved.write_bytes(video.read_bytes())
    assert [first(ReadWindow(16, None, None, None, "random", seed)(moved)) for seed in range(12)] == starts


def test_a_video_that_ends_before_is_named(video):
    with pytest.raises(TimeloomError, match=r"bright\.webp.* ends at 5\.000 s"):
        ReadWindow(64, 8.0, 8, 8)(video)
    with pytest.raises(TimeloomError, match=r"bright\.webp: has 40 frames .*, not 64 frames"):
        ReadWindow(64, None, 8, 8)(video)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_ahead_keeps_the_order_and_says_what_cannot_be_read(video, tmp_path, workers):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    items = [(number, tmp_path / "broken.mp4" if number == 3 else video) for number in range(7)]
    found = dict(read_ahead(items, ReadWindow(16, 8.0, 8, 8), workers, ahead=3))
    assert list(found) == list(range(7))
    assert isinstance(found.pop(3), TimeloomError)
    for frames in found.values():
        np.testing.assert_array_equal(frames, ReadWindow(16, 8.0, 8, 8)(video))


def test_no_more_is_taken_than_may_be_in_memory(video):
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number, video

    reading = read_ahead(items(), ReadWindow(2, 8.0, 8, 8), 1, ahead=4)
    next(reading)
    assert len(taken) == 5
    reading.close()


def end_this_process(path):
    os._exit(1)


def test_a_process_that_dies_is_an_error(video):
    with pytest.raises(TimeloomError, match="was ended from outside"):
        list(read_ahead([(0, video)], end_this_process, 1, ahead=1))
