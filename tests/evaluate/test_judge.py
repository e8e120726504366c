"""The judge against exact ground truth: right on what is right, wrong on what is wrong, whatever noise does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from timeloom.data.clip import Window
from timeloom.data.digits import ATTRIBUTES, BACKGROUNDS, COLOURS, MOTIONS, Scene, render, scans_of
from timeloom.errors import TimeloomError
from timeloom.evaluate.judge import Judge, Verdict

WINDOW = Window(num_frames=16, fps=8.0, height=64, width=64)


def accuracies(verdicts, scenes):
    return {
        name: np.mean(
            [
                verdict.attributes[name] == scene.attributes[name]
                for verdict, scene in zip(verdicts, scenes, strict=True)
            ]
        )
        for name in ATTRIBUTES
    }


def rgb(name):
    return tuple(float(value) for value in COLOURS[name])


def a_scene(**changes) -> Scene:
    scan = int(scans_of("test")[7][0])
    scene = Scene(7, "red", "gray", "right", scan, rgb("red"), 0.0, (0.0, 0.0), 34.0, 26.0)
    return replace(scene, **changes)


def draw(*scenes, window=WINDOW):
    return render(scenes, window, [0.0] * len(scenes))


def half_size_and_back(clips):
    images = torch.from_numpy(clips).flatten(0, 1).permute(0, 3, 1, 2).float()
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    return soft.permute(0, 2, 3, 1).round().to(torch.uint8).unflatten(0, clips.shape[:2]).numpy()


def noisy(clips):
    noise = np.random.default_rng(0).normal(0, 8, clips.shape)
    return (clips + noise).clip(0, 255).astype(np.uint8)


def with_a_ruined_frame(clips):
    rng = np.random.default_rng(0)
    clips = clips.copy()
    for clip in clips:
        clip[rng.integers(len(clip))] = rng.integers(0, 256, clip.shape[1:])
    return clips


def test_accuracy_on_real_clips(judge, real):
    verdicts = judge(real.frames)
    for name, accuracy in accuracies(verdicts, real.scenes).items():
        assert accuracy >= 0.98, name
    assert np.mean([verdict.steady for verdict in verdicts]) >= 0.98


@pytest.mark.parametrize("change", [noisy, half_size_and_back, with_a_ruined_frame])
def test_accuracy_on_imperfect_clips(judge, real, change):
    for name, accuracy in accuracies(judge(change(real.frames[:100])), real.scenes[:100]).items():
        assert accuracy >= 0.95, name


def test_each_value_of_each_attribute_is_told_apart(judge):
    for name, values in (("background", BACKGROUNDS), ("motion", MOTIONS)):
        verdicts = judge(draw(*(a_scene(**{name: value}) for value in values)))
        assert [getattr(verdict, name) for verdict in verdicts] == list(values)
    verdicts = judge(draw(*(a_scene(colour=name, rgb=rgb(name)) for name in COLOURS)))
    assert [verdict.colour for verdict in verdicts] == list(COLOURS)
    verdicts = judge(draw(*(a_scene(digit=digit, scan=int(own[1])) for digit, own in enumerate(scans_of("test")))))
    assert [verdict.digit for verdict in verdicts] == [str(digit) for digit in range(10)]


def test_a_change_of_one_attribute_changes_that_verdict_alone(judge):
    other_digit = {"digit": 2, "scan": int(scans_of("test")[2][0])}
    changes = {
        "digit": other_digit,
        "colour": {"colour": "blue", "rgb": rgb("blue")},
        "background": {"background": "checkers"},
        "motion": {"motion": "left"},
    }
    asked = a_scene().attributes
    verdicts = judge(draw(*(a_scene(**change) for change in changes.values())))
    for name, verdict in zip(changes, verdicts, strict=True):
        assert {key for key in asked if verdict.attributes[key] != asked[key]} == {name}


def test_the_batch_makes_no_difference(judge, real):
    together = judge(real.frames[:40])
    assert together == [judge(clip[None])[0] for clip in real.frames[:40]]


def test_nothing_is_said_of_a_clip_without_a_digit(judge):
    empty = np.full((1, 16, 64, 64, 3), 128, np.uint8)
    assert judge(empty) == [Verdict()]
    flooded = np.zeros((1, 16, 64, 64, 3), np.uint8)
    flooded[..., 0] = 220
    assert judge(flooded) == [Verdict()]
    noise = np.random.default_rng(0).integers(0, 256, (1, 16, 64, 64, 3), dtype=np.uint8)
    assert judge(noise) == [Verdict()]
    mostly_empty = draw(a_scene())
    mostly_empty[:, 4:] = 128
    assert judge(mostly_empty) == [Verdict()]


def test_a_disc_is_no_digit(judge):
    y, x = np.mgrid[:64, :64] - 31.5
    clip = np.full((1, 16, 64, 64, 3), 128, np.uint8)
    clip[:, :, x**2 + y**2 < 12**2] = COLOURS["green"]
    verdict = judge(clip)[0]
    assert (verdict.digit, verdict.colour, verdict.motion) == (None, "green", "still")
    assert verdict.steady is False  # a plain bool, which JSON takes


def test_a_digit_or_colour_that_changes_half_way_is_none(judge):
    first = draw(a_scene())
    other_digit, other_colour = first.copy(), first.copy()
    other_digit[:, 8:] = draw(a_scene(digit=2, scan=int(scans_of("test")[2][0])))[:, 8:]
    other_colour[:, 8:] = draw(a_scene(colour="blue", rgb=rgb("blue")))[:, 8:]
    verdict = judge(other_digit)[0]
    assert (verdict.digit, verdict.steady, verdict.colour) == (None, False, "red")
    assert judge(other_colour)[0].colour is None


def test_a_digit_that_changes_for_a_quarter_is_not_steady(judge):
    clip = draw(a_scene())
    clip[:, 12:] = draw(a_scene(digit=2, scan=int(scans_of("test")[2][0])))[:, 12:]
    assert not judge(clip)[0].steady


@pytest.mark.parametrize("window", [Window(16, 8.0, 128, 128), Window(16, 8.0, 64, 96), Window(24, 12.0, 64, 64)])
def test_other_sizes_and_rates(window):
    scenes = [a_scene(motion=motion) for motion in ("up left", "bounce", "spin", "shrink", "still")]
    for verdict, scene in zip(Judge(fps=window.fps)(draw(*scenes, window=window)), scenes, strict=True):
        assert verdict.attributes == scene.attributes


def test_two_frames_are_enough_to_read_what_stands_still(judge):
    verdict = judge(draw(a_scene(), window=Window(2, 8.0, 64, 64)))[0]
    assert (verdict.digit, verdict.colour, verdict.background) == ("7", "red", "gray")


def test_an_image_is_judged_without_its_motion(judge):
    image = draw(a_scene(motion="left"))[:, :1]
    assert judge(image) == [Verdict("7", "red", "gray")]
    assert judge(np.full((1, 1, 64, 64, 3), 128, np.uint8)) == [Verdict()]


def test_accuracy_on_real_images(judge, real):
    """One frame of each clip, at all moments; what spins is at any angle, and left out."""
    upright = [place for place, scene in enumerate(real.scenes) if scene.motion != "spin"]
    images = np.stack([real.frames[place, place % 16 : place % 16 + 1] for place in upright])
    found = accuracies(judge(images), [real.scenes[place] for place in upright])
    assert found.pop("motion") == 0
    for name, accuracy in found.items():
        assert accuracy >= 0.97, name


@pytest.mark.parametrize(
    "clips",
    [np.zeros((1, 16, 64, 64, 3)), np.zeros((16, 64, 64, 3), np.uint8), np.zeros((1, 0, 64, 64, 3), np.uint8)],
)
def test_what_is_no_batch_of_clips_is_refused(judge, clips):
    with pytest.raises(TimeloomError, match="judge needs"):
        judge(clips)


def test_no_clips_no_verdicts(judge):
    assert judge(np.zeros((0, 16, 64, 64, 3), np.uint8)) == []
