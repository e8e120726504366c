"""Intervals against SciPy's, and against tables."""

import pytest
from scipy.stats import binomtest, ttest_1samp

from timeloom.evaluate.intervals import Share, student, wilson


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


def test_a_mean_over_runs_is_a_share_too():
    assert wilson(2.5, 8)[0] < 2.5 / 8 < wilson(2.5, 8)[1]
    assert wilson(2, 8)[0] < wilson(2.5, 8)[0] < wilson(3, 8)[0]


def test_student_by_the_table():
    """Three values, standard deviation 1: Student's table has 4.303 for two degrees of freedom."""
    assert student([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)


@pytest.mark.parametrize("values", [[0.1, 0.4], [0.5, 0.25, 0.3, 0.7], [2.0] * 3])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_student_equals_scipy(values, confidence):
    if len(set(values)) == 1:
        assert student(values, confidence) == (2.0, 2.0)
        return
    expected = ttest_1samp(values, 0).confidence_interval(confidence)
    assert student(values, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError):
        student([0.5])
