"""The contract, on extractors that are no networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.extractor import Classifier, Source


class Means(Classifier):
    name, dimension, num_classes, side, resize, min_frames = "means", 3, 2, 1, "none", 2
    takes = "clips"
    seen = 0

    def _prepare(self, items):
        self.seen = max(self.seen, len(items))
        return items.float()

    def _features(self, prepared):
        return prepared.flatten(1, -2).mean(dim=1)

    def _logits(self, prepared):
        return self._features(prepared)[:, :2] / 0


class FrameMeans(Means):
    takes = "frames"


@pytest.fixture
def clips():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 6, 7, 3), dtype=np.uint8)


def make(kind):
    return kind(nn.Identity(), Source(Path("it.pt"), "00"), batch_size=2)


def test_a_row_for_every_clip_or_every_frame(clips):
    by_clip, by_frame = make(Means), make(FrameMeans)
    rows = by_clip.features(clips)
    assert rows.dtype == np.float32
    assert rows.shape == (5, 3)
    np.testing.assert_allclose(rows, clips.mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(by_frame.features(clips), clips.mean(axis=(2, 3)).reshape(20, 3), rtol=1e-5)
    assert by_clip.seen == by_frame.seen == 2


def test_clips_may_be_a_view(clips):
    np.testing.assert_array_equal(make(Means).features(clips[:, ::-1]), make(Means).features(clips[:, ::-1].copy()))


def test_the_protocol_says_what_a_number_rests_on():
    assert make(Means).protocol == {
        "features": "means",
        "dimension": 3,
        "side": 1,
        "resize": "none",
        "pixels": "-1...1",
        "weights": "it.pt",
        "weights_sha256": "00",
    }


def test_what_is_not_finite_is_named(clips):
    with pytest.raises(TimeloomError, match=r"means gives logits that are not finite for clip 0 .* in it\.pt"):
        make(Means).logits(clips)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda clips: clips.astype(np.float32), "float32"),
        (lambda clips: clips[0], r"\(4, 6, 7, 3\)"),
        (lambda clips: clips[..., :1], r"\(5, 4, 6, 7, 1\)"),
        (lambda clips: clips[:0], r"\(0, 4"),
        (lambda clips: clips[:, :1], "at least 2 frames, and these have 1"),
    ],
)
def test_other_clips_are_refused(clips, broken, said):
    with pytest.raises(TimeloomError, match=said):
        make(Means).features(broken(clips))


def test_weights_do_not_learn():
    extractor = Means(nn.Linear(2, 2), Source(Path("it.pt"), "00"))
    assert not any(parameter.requires_grad for parameter in extractor.network.parameters())
    assert not extractor.network.training
    assert extractor.device == torch.device("cpu")
