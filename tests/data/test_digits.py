import hashlib
import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloom.data.clip import Window
from timeloom.data.digits import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    DigitsSource,
    Scene,
    combinations_of,
    draw_background,
    render,
    scans,
    scans_of,
)
from timeloom.data.digits_captions import BACKGROUND_WORDS, COLOUR_WORDS, DIGIT_WORDS, MOTION_WORDS
from timeloom.errors import TimeloomError

WINDOW = Window(16, 8, 64, 64)


def scene(**changes: object) -> Scene:
    plain = {
        "digit": 7,
        "colour": "red",
        "background": "black",
        "motion": "still",
        "scan": 0,
        "rgb": (200.0, 0.0, 0.0),
        "shade": 0.0,
        "centre": (0.0, 0.0),
        "size": 42.0,
        "travel": 26.0,
    }
    return Scene(**{**plain, **changes})  # type: ignore[arg-type]


def centroid(frames: np.ndarray) -> np.ndarray:
    """(F, 2): mean (x, y) of the red over a black ground."""
    weight = np.maximum(frames[..., 0].astype(float) - 40, 0)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    return np.stack([(weight * x).sum((1, 2)), (weight * y).sum((1, 2))], axis=1) / weight.sum((1, 2))[:, None]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 999_999), st.sampled_from(["train", "validation", "test"]))
def test_a_clip_is_a_function_of_seed_split_and_index(seed: int, index: int, split: str) -> None:
    first, second = DigitsSource(split, seed)[index], DigitsSource(split, seed)[index]
    assert (first.key, first.caption, first.attributes) == (second.key, second.caption, second.attributes)
    assert np.array_equal(first.draw(WINDOW, 0.5), second.draw(WINDOW, 0.5))


def test_a_batch_draws_what_the_clips_draw_alone() -> None:
    source = DigitsSource(seed=3)
    indices, starts = [5, 900, 17], [0.0, 0.3, 1.0]
    window = Window(5, 4, 64, 64)
    frames, captions = source.draw_batch(indices, window, starts)
    for i, (index, start) in enumerate(zip(indices, starts, strict=True)):
        assert np.array_equal(frames[i], source[index].draw(window, start))
        assert captions[i] == source[index].caption


def test_other_seeds_and_indices_give_other_clips() -> None:
    keys = {DigitsSource(seed=s)[i].draw(WINDOW, 0).tobytes() for s, i in itertools.product(range(4), range(4))}
    assert len(keys) == 16


def test_splits_share_no_handwriting_and_lose_none() -> None:
    parts = {split: {int(i) for own in scans_of(split) for i in own} for split in ("train", "validation", "test")}
    assert sum(len(part) for part in parts.values()) == len(scans()[1]) == 1797
    assert len(set.union(*parts.values())) == 1797
    for split in parts:
        for digit, own in enumerate(scans_of(split)):
            assert len(own) >= 10 and (scans()[1][own] == digit).all()


def test_a_tenth_of_the_combinations_is_never_trained_on() -> None:
    seen, unseen = set(combinations_of("seen")), set(combinations_of("unseen"))
    assert not seen & unseen and seen | unseen == set(combinations_of("all"))
    assert len(unseen) == round(0.1 * len(combinations_of("all")))
    source = DigitsSource("train")
    assert all((s.digit, s.colour, s.background, s.motion) in seen for s in (source.scene(i)[0] for i in range(2_000)))
    values = [{combination[k] for combination in seen} for k in range(4)]
    assert [len(v) for v in values] == [10, len(COLOURS), len(BACKGROUNDS), len(MOTIONS)]


@pytest.mark.parametrize(
    ("split", "which", "seed", "expected"),
    [
        ("train", "seen", 0, "25ac8f20c50fe176c338d3bf8b7af336c66bb63a2bd2559b69457993e9812603"),
        ("test", "unseen", 3, "3c51f0a60cca8f4d15d5a6407b254b3b6fd6fc9290b7ffa579f572097fa3ecb8"),
    ],
)
def test_models_were_trained_and_judged_on_these_very_clips(split: str, which: str, seed: int, expected: str) -> None:
    source = DigitsSource(split, seed, combinations=which)  # type: ignore[arg-type]
    told = [[source[i].key, source[i].origin, asdict(source.scene(i)[0]), source[i].caption] for i in range(200)]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest() == expected


@pytest.mark.parametrize(
    ("colours", "backgrounds"), [(("red", "blue"), ("black",)), (("pink",), ()), ((), ("stripes", "white")), ((), ())]
)
def test_a_style_has_these_colours_and_backgrounds_alone(
    colours: tuple[str, ...], backgrounds: tuple[str, ...]
) -> None:
    parts = {which: combinations_of(which, colours, backgrounds) for which in ("seen", "unseen", "all")}
    for which, own in parts.items():
        allowed = {
            one
            for one in combinations_of(which)  # so what is never trained on is the same in every style
            if one[1] in (colours or COLOURS) and one[2] in (backgrounds or BACKGROUNDS)
        }
        assert set(own) == allowed and len(own) == len(allowed)
    assert len(parts["seen"]) + len(parts["unseen"]) == len(parts["all"])
    source = DigitsSource("train", colours=colours, backgrounds=backgrounds)
    drawn = [source[i].attributes for i in range(300)]
    assert {clip["colour"] for clip in drawn} == set(colours or COLOURS)
    assert {clip["background"] for clip in drawn} == set(backgrounds or BACKGROUNDS)
    assert {clip["motion"] for clip in drawn} == set(MOTIONS)
    keys = {DigitsSource("train", colours=one)[0].key for one in ((), ("red",), ("red", "blue"))}
    assert len(keys) == 3


@pytest.mark.parametrize("style", [{"colours": ["rde"]}, {"backgrounds": ["strips"]}])
def test_a_style_that_there_is_not(style: dict[str, list[str]]) -> None:
    with pytest.raises(TimeloomError, match=r"Unknown (colour 'rde'|background 'strips')\. Did you mean"):
        DigitsSource(**style)  # type: ignore[arg-type]


def test_every_attribute_value_is_drawn_about_equally_often() -> None:
    source = DigitsSource("train")
    attributes = [source.scene(i)[0].attributes for i in range(4_000)]
    for name, values in (("digit", 10), ("colour", 8), ("background", 6), ("motion", 13)):
        counts = np.unique([a[name] for a in attributes], return_counts=True)[1]
        assert len(counts) == values
        assert counts.min() > 0.7 * 4_000 / values


def test_complete_captions_name_all_four_attributes() -> None:
    source = DigitsSource("test", combinations="all", complete_captions=True)
    for index in range(500):
        truth, caption = source.scene(index)
        assert any(f"{word} " in caption for word in COLOUR_WORDS[truth.colour])
        assert any(words in caption for words in BACKGROUND_WORDS[truth.background])
        assert any(words in caption for pair in MOTION_WORDS[truth.motion] for words in pair)
        assert DIGIT_WORDS[truth.digit] in caption or str(truth.digit) in caption


def test_training_captions_vary_and_sometimes_leave_something_out() -> None:
    source = DigitsSource("train")
    captions = [source.scene(i) for i in range(1_000)]
    assert len({caption for _, caption in captions}) > 950
    without = sum(not any(w in caption for w in BACKGROUND_WORDS[truth.background]) for truth, caption in captions)
    assert 100 < without < 200


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_directions_move_the_centroid_that_way(motion: str) -> None:
    path = centroid(render([scene(motion=motion)], WINDOW, [0.0])[0])
    dx, dy = DIRECTIONS[motion]
    moved = path[-1] - path[0]
    assert np.sign(np.round(moved, 1)).tolist() == [dx, dy]
    steps = np.diff(path, axis=0)
    assert np.allclose(steps, steps.mean(axis=0), atol=0.15), "sub-pixel steps are even"


def test_the_other_motions_change_what_they_say() -> None:
    frames = {
        motion: render([scene(motion=motion)], WINDOW, [0.0])[0]
        for motion in ("still", "bounce", "grow", "shrink", "spin")
    }
    area = {motion: (clip[..., 0] > 60).sum(axis=(1, 2)) for motion, clip in frames.items()}
    assert (frames["still"] == frames["still"][0]).all()
    heights = centroid(frames["bounce"])[:, 1]
    floor = [i for i in range(1, 15) if heights[i] >= heights[i - 1] and heights[i] > heights[i + 1]]
    assert len(floor) == 2
    assert area["grow"][-1] > 1.8 * area["grow"][0] and area["shrink"][0] > 1.8 * area["shrink"][-1]
    assert np.abs(frames["spin"][0].astype(int) - frames["spin"][-1]).mean() < 1  # a full turn
    assert np.abs(frames["spin"][0].astype(int) - frames["spin"][4]).mean() > 5


def test_quarter_turns_of_a_spin_are_quarter_turns_of_the_picture() -> None:
    one = scene(motion="spin")
    four = Window(5, 4 / (15 / 8), 64, 64)  # phases 0, 1/4, ..., 1
    clip = render([one], four, [0.0])[0].astype(int)
    assert np.abs(np.rot90(clip[0], -1) - clip[1]).mean() < 0.5  # clockwise


def test_larger_frames_show_the_same_scene() -> None:
    small = render([scene(motion="left")], WINDOW, [0.0])[0]
    large = render([scene(motion="left")], Window(16, 8, 128, 128), [0.0])[0]
    assert np.allclose(centroid(large) / 2, centroid(small), atol=0.5)


def test_wide_frames_keep_the_digit_in_the_middle() -> None:
    wide = render([scene()], Window(1, 8, 64, 112), [0.0])[0]
    square = render([scene()], Window(1, 8, 64, 64), [0.0])[0]
    assert np.abs(wide[:, :, 24:88].astype(int) - square).max() <= 1


def test_a_later_start_is_the_later_part_of_the_clip() -> None:
    whole = render([scene(motion="right")], WINDOW, [0.0])[0]
    late = render([scene(motion="right")], Window(8, 8, 64, 64), [1.0])[0]
    assert np.array_equal(late, whole[8:])


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_have_no_hue_and_differ(background: str) -> None:
    frame = render([scene(background=background, size=1e-3)], Window(1, 8, 64, 64), [0.0])[0, 0]
    assert (frame.max(axis=-1) == frame.min(axis=-1)).mean() > 0.99
    others = [draw_background(b, 0.0, 64, 64) for b in BACKGROUNDS if b != background]
    assert all((draw_background(background, 0.0, 64, 64) - other).abs().mean() > 10 for other in others)


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError):
        DigitsSource(num_clips=10)[10]
