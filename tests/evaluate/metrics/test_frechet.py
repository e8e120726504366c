"""The Fréchet distance where its value is known, against SciPy's matrix square root, and on bad input."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import timeloom.evaluate
from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import FeatureSet, Moments, find_metric
from timeloom.evaluate.metrics.frechet import FrechetMetric, frechet_distance, frechet_distance_from_moments


def draw(count, dimensions, seed=0, mean=0.0, spread=1.0):
    rng = np.random.default_rng(seed)
    return mean + spread * rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions))


def by_square_root(a, b, ddof=1):
    cov_a, cov_b = np.cov(a.T, ddof=ddof), np.cov(b.T, ddof=ddof)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    apart = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return apart + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root.real)


def through_moments(a, b, ddof=1):
    a, b = Moments.of(a), Moments.of(b)
    return frechet_distance_from_moments(a.mean, a.covariance(ddof), b.mean, b.covariance(ddof))


BOTH_WAYS = pytest.mark.parametrize("distance", [frechet_distance, through_moments])


def test_it_is_found_where_others_look_for_it():
    assert timeloom.evaluate.frechet_distance is frechet_distance
    assert timeloom.evaluate.frechet_distance_from_moments is frechet_distance_from_moments
    assert "frechet_distance" in dir(timeloom.evaluate)
    with pytest.raises(AttributeError, match="frechet"):
        _ = timeloom.evaluate.frechet


@BOTH_WAYS
@pytest.mark.parametrize(("count", "dimensions"), [(2, 40), (30, 40), (41, 40), (500, 40), (300, 1)])
def test_identical_sets_are_not_apart(distance, count, dimensions):
    features = draw(count, dimensions)
    assert distance(features, features.copy()) <= 1e-6
    assert distance(features, features[::-1]) <= 1e-6


@BOTH_WAYS
@pytest.mark.parametrize("count", [10, 200])
def test_a_shift_is_its_square(distance, count):
    features = draw(count, 30, mean=100.0)
    shift = np.linspace(-3, 5, 30)
    assert distance(features, features + shift) == pytest.approx(np.square(shift).sum(), rel=1e-9)


@BOTH_WAYS
@pytest.mark.parametrize("count", [10, 200])
@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_a_scale_is_exact(distance, count, factor):
    features = draw(count, 30)
    features -= features.mean(axis=0)
    expected = (1 - factor) ** 2 * np.trace(np.cov(features.T))
    assert distance(features, factor * features) == pytest.approx(expected, rel=1e-9)


@BOTH_WAYS
def test_sets_in_subspaces_of_their_own_share_nothing(distance):
    a, b = np.zeros((50, 40)), np.zeros((60, 40))
    a[:, :7], b[:, 11:20] = draw(50, 7, seed=1), draw(60, 9, seed=2, mean=4.0)
    spread = np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))
    assert distance(a, b) == pytest.approx(np.square(a.mean(0) - b.mean(0)).sum() + spread, rel=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_gaussians_along_the_axes(dimensions):
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 2, (2, dimensions))
    a[0] = 0.0
    mean_a, mean_b = rng.normal(size=(2, dimensions))
    expected = np.square(mean_a - mean_b).sum() + np.square(a - b).sum()
    assert frechet_distance_from_moments(mean_a, np.diag(a**2), mean_b, np.diag(b**2)) == pytest.approx(expected)


def test_two_gaussians_that_do_not_commute():
    """In two dimensions tr M^½ = (tr M + 2 (det M)^½)^½."""
    a, b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    root = (np.trace(a @ b) + 2 * np.linalg.det(a @ b) ** 0.5) ** 0.5
    zero = np.zeros(2)
    assert frechet_distance_from_moments(zero, a, zero, b) == pytest.approx(7 - 2 * root, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(2, 60), st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([0, 1]))
def test_equals_scipy_and_moments(dimensions, count_a, count_b, seed, ddof):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count_a, dimensions)) * rng.uniform(0.5, 2, dimensions)
    b = rng.normal(size=(count_b, dimensions)) + rng.normal(size=dimensions)
    value = frechet_distance(a, b, ddof=ddof)
    assert through_moments(a, b, ddof) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert frechet_distance(b, a, ddof=ddof) == pytest.approx(value, rel=1e-9, abs=1e-9)
    if min(count_a, count_b) > 2 * dimensions and dimensions > 1:
        assert value == pytest.approx(by_square_root(a, b, ddof), rel=1e-6)


def test_fewer_videos_than_features_is_exact():
    """The nonzero eigenvalues of Σ_a Σ_b are those of a small matrix, which a direct computation shows."""
    a, b = draw(9, 60, seed=1), draw(14, 60, seed=2)
    left, right = (a - a.mean(0)) / 8**0.5, (b - b.mean(0)) / 13**0.5
    gram = left @ right.T
    root = np.sqrt(np.linalg.eigvalsh(gram @ gram.T).clip(min=0)).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.square(left).sum() + np.square(right).sum() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)
    assert through_moments(a, b) == pytest.approx(expected, rel=1e-7)


def test_halves_of_one_set_have_the_known_bias():
    """To second order, for covariance with eigenvalues λ and n in each half:
    E d² = 2 tr Σ / n + Σ_ij λ_i λ_j (1 + δ_ij) / ((λ_i + λ_j) (n − 1))."""
    values, half = np.array([4.0, 2.0, 1.0, 1.0, 0.25]), 400
    pairs = np.outer(values, values) * (1 + np.eye(5)) / (values[:, None] + values)
    expected = 2 * values.sum() / half + pairs.sum() / (half - 1)
    rng = np.random.default_rng(0)
    sets = rng.normal(size=(300, 2 * half, 5)) * np.sqrt(values)
    found = [frechet_distance(one[:half], one[half:]) for one in sets]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - expected) <= 4 * error
    assert error <= 0.05 * expected


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "features_a: a Fréchet distance needs at least 2 videos, not 1"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "features_b: .* not 0"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 features a row cannot be compared with 4"),
        (np.zeros(5), np.zeros((5, 4)), "features_a: .* not \\(5,\\)"),
        (np.zeros((5, 4)), np.zeros((5, 2, 4)), "features_b: .* not \\(5, 2, 4\\)"),
    ],
)
def test_features_that_do_not_do(a, b, said):
    with pytest.raises(TimeloomError, match=said):
        frechet_distance(a, b)


def test_features_that_are_not_finite_are_counted_and_named():
    bad = draw(300, 3)
    bad[[7, 150, 299], 1] = [np.nan, np.inf, -np.inf]
    with pytest.raises(TimeloomError, match=r"features_b: 3 of 300 videos .* not finite: 7, 150, 299"):
        frechet_distance(draw(10, 3), bad)


def test_a_matrix_that_is_no_covariance():
    zero, one = np.zeros(2), np.eye(2)
    for wrong, said in (
        (np.diag([1.0, -0.1]), "cov_b is no covariance: it has the eigenvalue -0.1"),
        (-one, "cov_b is no covariance"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "cov_b is not symmetric"),
        (np.diag([1.0, np.nan]), "mean_b and cov_b hold 1 values that are not finite"),
        (np.eye(3), "are not"),
    ):
        with pytest.raises(TimeloomError, match=said):
            frechet_distance_from_moments(zero, one, zero, wrong)
    rounding = np.diag([1.0, -1e-9])
    assert frechet_distance_from_moments(zero, rounding, zero, np.diag([1.0, 0.0])) == pytest.approx(0, abs=1e-12)


FAST = FrechetMetric("fvd", "i3d", replicates=20, parts=4)


def named(features, order=None):
    order = np.arange(len(features)) if order is None else order
    return FeatureSet([f"{place}.mp4" for place in order], lambda places: features[order[places]])


def test_the_metric_is_the_distance_and_its_order_is_nothing():
    fake, real = draw(150, 6, seed=1), draw(170, 6, seed=2, mean=0.3)
    result = FAST.measure(named(fake), named(real))
    assert result.value == pytest.approx(frechet_distance(fake, real), rel=1e-9)
    assert (result.count, result.reference_count, result.missing) == (150, 170, 0)
    low, high = result.interval
    assert 0 <= low < result.value < high
    rng = np.random.default_rng(0)
    again = FAST.measure(named(fake, rng.permutation(150)), named(real, rng.permutation(170)))
    assert again.value == pytest.approx(result.value, rel=1e-9)
    assert again.interval == pytest.approx(result.interval, rel=1e-9)
    assert again.details["infinite"] == {
        key: pytest.approx(value, rel=1e-6, abs=1e-9) for key, value in result.details["infinite"].items()
    }


def test_frames_of_a_video_are_rows_drawn_together():
    fake, real = draw(400, 5, seed=1).reshape(100, 4, 5), draw(400, 5, seed=2).reshape(100, 4, 5)
    value = frechet_distance(fake.reshape(400, 5), real.reshape(400, 5))
    apart = FAST.measure(FeatureSet.of(fake), FeatureSet.of(real))
    assert apart.value == pytest.approx(value, rel=1e-9) and apart.count == 100
    alike = np.repeat(fake[:, :1], 4, axis=1)  # four times the same frame says no more than once
    wide = FAST.measure(FeatureSet.of(alike), FeatureSet.of(real)).interval
    once = FAST.measure(FeatureSet.of(alike[:, 0]), FeatureSet.of(real)).interval
    assert wide[1] - wide[0] == pytest.approx(once[1] - once[0], rel=0.1)


def test_moments_may_stand_for_the_real_videos():
    fake, real = draw(150, 6, seed=1), draw(170, 6, seed=2)
    by_moments = FAST.measure(FeatureSet.of(fake), Moments.of(real))
    by_features = FAST.measure(FeatureSet.of(fake), FeatureSet.of(real))
    assert by_moments.value == pytest.approx(by_features.value, rel=1e-9)
    assert by_moments.interval == pytest.approx(by_features.interval, rel=1e-9)
    assert by_moments.reference_count == 170
    assert by_moments.details["infinite"]["value"] > by_features.details["infinite"]["value"]  # one bias is left


def test_the_limit_is_nearer_to_what_is_true():
    """Two sets of one distribution: the distance is its bias, and the limit hardly anything."""
    rng = np.random.default_rng(0)
    values, limits = [], []
    for _ in range(40):
        fake, real = (FeatureSet.of(rng.normal(size=(600, 8))) for _ in range(2))
        values.append(frechet_distance(fake.take(np.arange(600)), real.take(np.arange(600))))
        limits.append(FAST.extrapolate(fake, real).value)
    expected = 2 * 8 / 600 + 8 * 9 / (2 * 599)
    assert np.mean(values) == pytest.approx(expected, rel=0.15)
    assert abs(np.mean(limits)) <= 0.25 * expected


def test_too_few_videos_have_no_interval_and_no_limit():
    result = FAST.measure(FeatureSet.of(draw(31, 3)), FeatureSet.of(draw(200, 3, seed=1)))
    assert result.interval is None and result.details["infinite"] is None
    for fake, real in ((draw(1, 3), draw(9, 3)), (draw(9, 3), draw(1, 3))):
        with pytest.raises(TimeloomError, match="fvd needs at least 2 videos, not 1"):
            FAST.measure(FeatureSet.of(fake), FeatureSet.of(real))
    with pytest.raises(TimeloomError, match="fid needs the features of real videos"):
        find_metric("fid").measure(FeatureSet.of(draw(9, 3)))
    with pytest.raises(TimeloomError, match="3 features cannot be compared with the reference's 4"):
        FAST.measure(FeatureSet.of(draw(9, 3)), FeatureSet.of(draw(9, 4)))
