"""The network of digits as it is shipped, and folders that are not its."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from timeloom import zoo
from timeloom.data.clip import Window
from timeloom.data.digits import CLASSES, DigitsSource
from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.digits import (
    NAME,
    load_digits_image,
    load_digits_text_video,
    load_digits_video,
)

SQUARE, WIDE = Window(16, 8, 64, 64), Window(16, 8, 64, 112)
COUNT = 48


@pytest.fixture(scope="module")
def shown():
    """Test clips, square and wide, their captions and attributes."""
    source = DigitsSource("test", seed=5, combinations="all", complete_captions=True)
    square, captions = source.draw_batch(range(COUNT), SQUARE, [0.0] * COUNT)
    wide, _ = source.draw_batch(range(COUNT), WIDE, [0.0] * COUNT)
    return square, wide, captions, [source[index].attributes for index in range(COUNT)]


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped folder, to be spoilt."""
    return shutil.copytree(zoo.ZOO / NAME, tmp_path / NAME)


def right(scores, attribute, shown):
    return np.mean(
        [CLASSES[attribute][i] == told[attribute] for i, told in zip(scores.argmax(1), shown[3], strict=True)]
    )


def test_it_is_small_and_no_model_that_generates():
    assert sum(path.stat().st_size for path in (zoo.ZOO / NAME).iterdir()) < 1.5e6
    assert NAME not in zoo.names()


def test_it_tells_what_clips_show_square_or_wide(shown):
    video = load_digits_video()
    for clips in shown[:2]:
        joint = video.logits(clips).reshape(COUNT, 10, 13)
        np.testing.assert_allclose(np.exp(joint).sum(axis=(1, 2)), 1, rtol=1e-4)
        assert right(joint.max(axis=2), "digit", shown) > 0.8
        assert right(joint.max(axis=1), "motion", shown) > 0.9
        assert video.features(clips).shape == (COUNT, video.dimension)


def test_it_tells_what_single_frames_show(shown):
    image = load_digits_image()
    first = shown[0][:, :2]
    joint = image.logits(first).reshape(COUNT, 2, 10, 8)
    assert right(joint[:, 0].max(axis=1), "colour", shown) > 0.95
    assert right(joint[:, 0].max(axis=2), "digit", shown) > 0.7
    rows = image.features(first)
    assert rows.shape == (2 * COUNT, image.dimension)
    np.testing.assert_allclose(image.features(first[:, 1:]), rows[1::2], atol=1e-4)


def test_clips_and_their_sentences_lie_beside_each_other(shown):
    extractor = load_digits_text_video(batch_size=7)
    clips, texts = extractor.features(shown[0]), extractor.text_features(shown[2])
    assert clips.shape == texts.shape == (COUNT, extractor.dimension)
    likeness = clips @ texts.T
    own = np.diag(likeness)
    assert own.mean() > np.median(likeness) + 0.5
    backwards = extractor.features(shown[0][:, ::-1].copy())
    moving = [told["motion"] in ("left", "right", "up", "down", "grow", "shrink") for told in shown[3]]
    assert (own - (backwards * texts).sum(axis=1))[moving].mean() > 0.1  # it sees what motion does
    with pytest.raises(TimeloomError, match="at least one text"):
        extractor.text_features([])


def test_names_say_that_these_are_other_numbers():
    for extractor in (load_digits_video(), load_digits_image(), load_digits_text_video()):
        assert extractor.name.startswith("digits-")
        assert extractor.protocol["weights_sha256"] and extractor.protocol["resize"] == "antialias, crop"


def test_larger_frames_are_made_smaller(shown):
    video, square = load_digits_video(), shown[0][:8]
    large = square.repeat(2, axis=2).repeat(2, axis=3)
    near = np.abs(video.features(large) - video.features(square)).mean()
    apart = np.abs(video.features(square[::-1].copy()) - video.features(square)).mean()
    assert near < 0.2 * apart


def test_no_folder_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(TimeloomError, match=r"no model\.safetensors.*digits/features"):
        load_digits_video(tmp_path)


def test_another_text_encoder_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "text_encoder_sha256": "00"}))
    load_digits_video(copy)
    with pytest.raises(TimeloomError, match="trained beside another text encoder"):
        load_digits_text_video(copy)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"width": 8}, "of another shape"),
        ({"depth": 3}, "not that of digits-features"),
        ({"dimension": 64}, "of another shape"),
    ],
)
def test_another_networks_config_is_refused(copy, change, complaint):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(TimeloomError, match=complaint):
        load_digits_image(copy)


def test_weights_that_are_not_its_or_not_finite_are_refused(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "neck.bias"}, path)
    with pytest.raises(TimeloomError, match=r"missing 1 \(neck\.bias\)"):
        load_digits_video(copy)
    save_file({**tensors, "neck.bias": torch.full_like(tensors["neck.bias"], torch.nan)}, path)
    with pytest.raises(TimeloomError, match="not finite"):
        load_digits_video(copy)
