"""Moments of parts are the moments of the whole, whatever the parts."""

import multiprocessing
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import FeatureSet
from timeloom.evaluate.metrics.frechet import moments_of
from timeloom.evaluate.metrics.moments import Moments


def assert_alike(one, other, rel=1e-9):
    scale = np.abs(other.covariance(0)).max() + 1e-300
    assert one.count == other.count
    np.testing.assert_allclose(one.mean, other.mean, rtol=rel, atol=rel * scale**0.5)
    np.testing.assert_allclose(one.covariance(0), other.covariance(0), rtol=rel, atol=rel * scale)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 80), st.integers(1, 6), st.floats(-1e4, 1e4), st.lists(st.integers(0, 80), max_size=6), st.randoms()
)
def test_any_partition_in_any_order(count, dimensions, mean, cuts, random):
    rng = np.random.default_rng(count)
    rows = mean + rng.normal(size=(count, dimensions))
    whole = Moments.of(rows)
    np.testing.assert_allclose(whole.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole.covariance(), np.cov(rows.T).reshape(dimensions, dimensions), rtol=1e-9, atol=1e-9)
    parts = [Moments.of(part) for part in np.split(rows, sorted(min(cut, count) for cut in cuts))]
    random.shuffle(parts)
    assert_alike(Moments.merged(parts), whole)
    one_by_one = Moments.empty(dimensions)
    for row in rows[rng.permutation(count)]:
        one_by_one.add(row[None])
    assert_alike(one_by_one, whole)


def test_values_far_from_zero_keep_their_spread():
    rows = 1e7 + np.random.default_rng(0).normal(size=(1000, 3))
    parts = Moments.merged([Moments.of(part) for part in np.array_split(rows, 50)])
    np.testing.assert_allclose(parts.covariance(), np.cov((rows - 1e7).T), rtol=1e-6, atol=1e-6)


def test_weights_are_repeats_and_frames_are_rows():
    rng = np.random.default_rng(0)
    videos, weights = rng.normal(size=(20, 3, 4)), rng.integers(0, 4, 20)
    weighted = Moments.empty(4)
    weighted.add(videos, weights)
    assert_alike(weighted, Moments.of(np.repeat(videos, weights, axis=0).reshape(-1, 4)))
    before = weighted.covariance()
    weighted.add(videos, np.zeros(20))
    weighted.add(videos[:0])
    np.testing.assert_array_equal(weighted.covariance(), before)


@pytest.mark.parametrize("ddof", [0, 1])
def test_ddof_is_that_of_numpy(ddof):
    rows = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_allclose(Moments.of(rows).covariance(ddof), np.cov(rows.T, ddof=ddof), rtol=1e-12, atol=1e-14)


def test_parts_from_processes():
    rows = np.random.default_rng(0).normal(size=(90, 5))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(Moments.of, [rows[0::2], rows[1::2]])
    assert_alike(Moments.merged(parts), Moments.of(rows))


def test_memory_does_not_grow_with_the_videos():
    def peak(count):
        source = FeatureSet([str(i) for i in range(count)], lambda places: np.sin(places[:, None] + np.arange(200.0)))
        tracemalloc.start()
        moments = moments_of(source)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert moments.count == count
        return size

    peak(256)
    assert peak(8192) <= peak(256) + (128 << 10)  # 8,192 places are 64 KiB


def test_what_is_refused():
    with pytest.raises(TimeloomError, match="1 of 2 rows of features are not finite"):
        Moments.of([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(TimeloomError, match="2 features cannot be added to those of 3"):
        Moments.empty(3).merge(Moments.empty(2))
    with pytest.raises(TimeloomError, match="needs more than 1 rows, not 1"):
        Moments.of([[1.0, 2.0]]).covariance()
    with pytest.raises(TimeloomError, match="no moments"):
        Moments.merged([])
