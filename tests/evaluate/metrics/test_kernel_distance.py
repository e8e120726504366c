"""The kernel distance against its formula, written down pair by pair."""

import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import FeatureSet, Moments, find_metric
from timeloom.evaluate.metrics.kernel_distance import kernel_distance


def pair_by_pair(a, b):
    def kernel(x, y):
        return np.mean([[(p @ q / len(p) + 1) ** 3 for q in y] for p in x])

    within = [np.mean([kernel(x, y) for i, x in enumerate(one) for j, y in enumerate(one) if i != j]) for one in (a, b)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


@pytest.mark.parametrize(("count", "frames"), [(2, 1), (7, 1), (30, 1), (23, 3)])
def test_is_the_mean_over_pairs_of_different_videos(count, frames):
    rng = np.random.default_rng(count)
    a, b = rng.normal(size=(count, frames, 4)), rng.normal(size=(count + 3, frames, 4)) + 0.2
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(pair_by_pair(a, b), rel=1e-9)
    if frames == 1:
        assert kernel_distance(a[:, 0], b[:, 0]).value == pytest.approx(found.value, rel=1e-9)
    assert kernel_distance(a, b, seed=1).value == pytest.approx(found.value, rel=1e-9)
    order = rng.permutation(count)
    assert kernel_distance(a[order], b).value == pytest.approx(found.value, rel=1e-9)


def test_it_has_no_bias_and_knows_its_error():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 6))
    draws = [kernel_distance(rng.normal(size=(64, 6)) + 0.3, real) for _ in range(100)]
    values, errors = (np.array(column) for column in zip(*((d.value, d.standard_error) for d in draws), strict=True))
    large = kernel_distance(rng.normal(size=(4000, 6)) + 0.3, real)
    assert abs(values.mean() - large.value) <= 4 * (values.var() / 100 + large.standard_error**2) ** 0.5
    assert np.mean(errors) == pytest.approx(values.std(), rel=0.25)
    alike = [kernel_distance(*rng.normal(size=(2, 20, 6))).value for _ in range(150)]
    assert abs(np.mean(alike)) <= 4 * np.std(alike) / 150**0.5
    assert min(alike) < 0


def test_the_metric_says_how_sure_it_is():
    rng = np.random.default_rng(0)
    fake, real = FeatureSet.of(rng.normal(size=(50, 3, 4)) + 1), FeatureSet.of(rng.normal(size=(40, 3, 4)))
    result = find_metric("kid").measure(fake, real)
    error = result.details["standard_error"]
    assert result.interval == pytest.approx((result.value - 1.96 * error, result.value + 1.96 * error), rel=1e-3)
    assert (result.count, result.reference_count) == (50, 40)
    few = FeatureSet.of(rng.normal(size=(31, 3, 4)))
    assert find_metric("kid").measure(few, real).interval is None


def test_what_is_refused():
    one, two = np.zeros((1, 3)), np.zeros((2, 3))
    with pytest.raises(TimeloomError, match="features_b: a kernel distance needs at least 2 videos, not 1"):
        kernel_distance(two, one)
    with pytest.raises(TimeloomError, match="3 features cannot be compared with the reference's 4"):
        kernel_distance(two, np.zeros((2, 4)))
    with pytest.raises(TimeloomError, match="not finite"):
        kernel_distance(two, np.full((2, 3), np.nan))
    with pytest.raises(TimeloomError, match="not their moments"):
        find_metric("kvd").measure(FeatureSet.of(two), Moments.of(two))
