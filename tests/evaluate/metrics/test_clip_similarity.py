"""CLIPSIM of embeddings whose angles are known."""

import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import FeatureSet, find_metric
from timeloom.evaluate.metrics.clip_similarity import clip_similarity


def at(angles):
    """Embeddings of any length at these angles to the first axis."""
    angles = np.asarray(angles, dtype=float)
    lengths = np.random.default_rng(0).uniform(0.1, 9, angles.shape)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=-1)


def test_is_the_mean_of_the_cosines():
    angles = np.random.default_rng(1).uniform(-3, 3, (150, 5))
    values = clip_similarity(at(angles), at(np.zeros(150)))
    np.testing.assert_allclose(values, np.cos(angles).mean(axis=1), rtol=1e-9, atol=1e-12)


def test_texts_are_found_by_name_whatever_the_order():
    angles = np.random.default_rng(1).uniform(-3, 3, (150, 5))
    turned = at(angles), at(angles[:, 0])
    order = np.random.default_rng(2).permutation(150)
    frames = FeatureSet([str(i) for i in range(150)], lambda places: turned[0][places])
    texts = FeatureSet([str(i) for i in order], lambda places: turned[1][order[places]])
    result = find_metric("clipsim").measure(frames, texts)
    assert result.value == pytest.approx(np.cos(angles - angles[:, :1]).mean(), rel=1e-9)
    error = np.cos(angles - angles[:, :1]).mean(axis=1).std() / 150**0.5
    assert result.interval == pytest.approx((result.value - 1.96 * error, result.value + 1.96 * error), abs=error / 2)
    assert (result.count, result.reference_count) == (150, 150)
    shuffled = FeatureSet([str(i) for i in order], lambda places: turned[0][order[places]])
    again = find_metric("clipsim").measure(shuffled, texts)
    assert again.interval == pytest.approx(result.interval, rel=1e-9)


def test_what_is_refused():
    frames, texts = np.ones((3, 2, 4)), np.ones((3, 4))
    with pytest.raises(TimeloomError, match="frames: 1 of 3 videos have no text: 2"):
        clip_similarity(frames, texts[:2])
    with pytest.raises(TimeloomError, match="4 features cannot be compared with the reference's 5"):
        clip_similarity(frames, np.ones((3, 5)))
    with pytest.raises(TimeloomError, match="one embedding a text"):
        clip_similarity(texts, frames)
    frames[1, 0] = 0
    with pytest.raises(TimeloomError, match="frames: 1 videos have an embedding of length 0: 1"):
        clip_similarity(frames, texts)
    texts[2, 0] = np.nan
    with pytest.raises(TimeloomError, match=r"texts: 1 of 3 .* not finite: 2"):
        clip_similarity(np.ones((3, 2, 4)), texts)
    with pytest.raises(TimeloomError, match="features of the texts"):
        find_metric("clipsim").measure(FeatureSet.of(frames))
