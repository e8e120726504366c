"""The inception score where it is known, and that neither order nor chunks matter."""

from dataclasses import replace

import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import FeatureSet, find_metric
from timeloom.evaluate.metrics.inception_score import inception_score

SURE = 200.0


def one_score(logits):
    chance = np.exp(logits - logits.max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    return np.exp(np.mean((chance * (np.log(chance) - np.log(chance.mean(axis=0)))).sum(axis=1)))


def test_no_idea_is_one_and_every_class_surely_is_their_number():
    assert inception_score(np.zeros((40, 7))) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile(SURE * np.eye(7)[0], (40, 1))) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile(SURE * np.eye(7), (20, 1)), splits=10) == pytest.approx((7.0, 0.0))
    sorted_by_class = np.repeat(SURE * np.eye(10), 20, axis=0)
    assert inception_score(sorted_by_class, splits=10)[0] == pytest.approx(1.0)
    assert inception_score(sorted_by_class, splits=1)[0] == pytest.approx(10.0)


@pytest.mark.parametrize(("count", "splits"), [(40, 1), (400, 3), (400, 10)])
def test_equals_the_formula(count, splits):
    logits = np.random.default_rng(0).normal(size=(count, 9)) * 3
    scores = [one_score(part) for part in np.array_split(logits, splits)]
    assert inception_score(logits, splits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)
    assert inception_score(logits + 1e4, splits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-6)
    frames = logits.reshape(-1, 4, 9)
    assert inception_score(frames, 1)[0] == pytest.approx(one_score(logits), rel=1e-9)


def named(logits, order):
    return FeatureSet([f"{place}.mp4" for place in order], lambda places: logits[order[places]])


def test_the_metric_does_not_depend_on_order():
    logits = np.repeat(4 * np.eye(8), 50, axis=0) + np.random.default_rng(0).normal(size=(400, 8))
    metric = replace(find_metric("is-video"), replicates=50)
    result = metric.measure(named(logits, np.arange(400)))
    again = metric.measure(named(logits, np.random.default_rng(1).permutation(400)))
    assert again.value == pytest.approx(result.value, rel=1e-9)
    assert again.interval == pytest.approx(result.interval, rel=1e-9)
    assert result.interval[0] < result.value < result.interval[1]
    assert result.details["standard_deviation_of_splits"] > 0
    whole = replace(metric, splits=1).measure(named(logits, np.arange(400)))
    assert whole.value == pytest.approx(one_score(logits), rel=1e-9)


def test_what_is_refused():
    with pytest.raises(TimeloomError, match="in 10 splits needs at least 20 videos, not 19"):
        inception_score(np.zeros((19, 3)))
    with pytest.raises(TimeloomError, match="at least 1 split, not 0"):
        inception_score(np.zeros((19, 3)), splits=0)
    with pytest.raises(TimeloomError, match=r"1 of 20 videos .* not finite: 4"):
        inception_score(np.where(np.arange(20)[:, None] == 4, np.inf, np.zeros((20, 3))), splits=1)
    few = find_metric("is").measure(FeatureSet.of(np.zeros((319, 4))))
    assert few.interval is None
