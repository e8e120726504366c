"""Resampling videos gives the error that is known, and a line is found again."""

import numpy as np
import pytest

from timeloom.evaluate.metrics import uncertainty
from timeloom.evaluate.metrics.features import FeatureSet
from timeloom.evaluate.metrics.uncertainty import fit_line, interval, resampled_moments


def test_resamples_of_a_mean_have_its_standard_error():
    rows = np.random.default_rng(0).normal(size=(400, 2)) * [1.0, 3.0]
    means = np.array([moments.mean for moments in resampled_moments(FeatureSet.of(rows), 400, seed=0)])
    assert means.std(axis=0) == pytest.approx(rows.std(axis=0) / 20, rel=0.15)
    assert means.mean(axis=0) == pytest.approx(rows.mean(axis=0), abs=0.03)


def test_a_budget_reads_again_and_changes_nothing(monkeypatch):
    features = FeatureSet.of(np.random.default_rng(0).normal(size=(300, 4)))

    def covariances():
        return [moments.covariance() for moments in resampled_moments(features, 10, seed=3)]

    at_once = covariances()
    monkeypatch.setattr(uncertainty, "BUDGET_BYTES", 3 * 8 * 16)
    np.testing.assert_array_equal(covariances(), at_once)
    other = next(resampled_moments(features, 10, seed=4)).covariance()
    assert not np.array_equal(other, at_once[0])


def test_an_interval_is_laid_around_the_value():
    replicates = np.linspace(10.0, 20.0, 101)
    assert interval(3.0, replicates, 0.8) == pytest.approx((-1.0, 7.0))
    assert interval(3.0, np.zeros(0), 0.8) is None


def test_a_line_is_found_again():
    line = fit_line([5.0 + 2.0 * k for k in (1, 2, 3, 4)])
    assert (line.value, line.slope, line.standard_error) == pytest.approx((5.0, 2.0, 0.0), abs=1e-12)
    assert line.distances == (7.0, 9.0, 11.0, 13.0)


def test_its_error_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    fits = [fit_line(5.0 + 2.0 * np.arange(1, 9) + rng.normal(size=8)) for _ in range(2000)]
    assert np.mean([fit.value for fit in fits]) == pytest.approx(5.0, abs=0.1)
    assert np.mean([fit.standard_error**2 for fit in fits]) == pytest.approx(
        np.var([fit.value for fit in fits]), rel=0.1
    )
