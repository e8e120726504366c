"""Wilson's interval against SciPy's."""

import pytest
from scipy.stats import binomtest

from timeloom.evaluate.intervals import Share, wilson


@pytest.mark.parametrize(("right", "total"), [(0, 1), (0, 7), (7, 7), (1, 2), (461, 512), (511, 512)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_equals_scipy(right, total, confidence):
    expected = binomtest(right, total).proportion_ci(confidence, method="wilson")
    assert wilson(right, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_counted_says_nothing():
    assert Share(0, 0).value == 0.0
    assert Share(0, 0).interval == (0.0, 1.0)


@pytest.mark.parametrize(("right", "total"), [(-1, 5), (6, 5)])
def test_impossible_counts(right, total):
    with pytest.raises(ValueError):
        wilson(right, total)
