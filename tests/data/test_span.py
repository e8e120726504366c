from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timeloom.data import Window
from timeloom.data.movie import Packed
from timeloom.data.span import draw_span, draw_still
from timeloom.errors import TimeloomError

MakeVideo = Callable[..., Path]
WINDOW = Window(num_frames=8, fps=8, height=16, width=16)


def shown(frames: np.ndarray) -> list[int]:
    """The number of each frame, read off its grey level."""
    assert frames.shape == (8, 16, 16, 3) and frames.dtype == np.uint8
    return (frames.mean(axis=(1, 2, 3)) / 8).round().astype(int).tolist()


@pytest.mark.parametrize(
    ("rule", "frames"),
    [
        ("slow", [2, 2, 3, 3, 4, 4, 5, 5]),
        ("repeat_last", [2, 3, 4, 5, 5, 5, 5, 5]),
        ("loop", [2, 3, 4, 5, 2, 3, 4, 5]),
    ],
)
def test_a_short_span_is_filled_by_the_rule(make_video: MakeVideo, rule: str, frames: list[int]) -> None:
    path = make_video("a.mp4", num_frames=12)
    for start in (0.0, 1.0):
        assert shown(draw_span(path, 2 / 8, 6 / 8, rule, WINDOW, start)) == frames


def test_a_long_span_is_never_left_whatever_the_rule(make_video: MakeVideo) -> None:
    path = make_video("a.mp4", num_frames=20)
    for rule in ("drop", "slow", "repeat_last", "loop"):
        for start, first in ((0.0, 3), (0.5, 5), (1.0, 7)):
            assert shown(draw_span(path, 3 / 8, 15 / 8, rule, WINDOW, start)) == list(range(first, first + 8))


def test_an_open_end_is_the_files(make_video: MakeVideo) -> None:
    path = make_video("a.mp4", num_frames=12)
    assert shown(draw_span(path, 0.25, float("nan"), "drop", WINDOW, 1.0)) == list(range(4, 12))
    packed = Packed(Path("shard.tar/a.mp4"), path.read_bytes())
    assert shown(draw_span(packed, 0, float("nan"), "drop", WINDOW, 0)) == list(range(8))


def test_dropping_says_so(make_video: MakeVideo) -> None:
    path = make_video("a.mp4", num_frames=12)
    with pytest.raises(TimeloomError, match=r"a\.mp4: is shorter than the window \(0\.500 s\)"):
        draw_span(path, 0.0, 0.5, "drop", WINDOW, 0)
    with pytest.raises(TimeloomError, match="shorter than the window"):
        draw_span(path, 0.5, 0.5, "loop", WINDOW, 0)


def test_a_still_is_one_frame_repeated(make_video: MakeVideo) -> None:
    frames = draw_still(make_video("a.png"), WINDOW, 0.3)
    assert frames.shape == (8, 16, 16, 3) and (frames == frames[0]).all() and frames[0, 0, 0, 0] == 100
