import choix
import numpy as np
import pytest
from scipy.optimize import minimize

from timeloom.study.ranking import PENALTY, fit, rank
from timeloom.study.statistics import Votes


def test_two_systems_by_hand():
    """60 wins, 20 ties, 20 losses: the difference is ln(60 / 20), and ν is 20 / √(60 · 20)."""
    strengths, log_ties = fit(np.array([[[20.0, 20.0, 60.0]]]), np.array([[0, 1]]), 2)
    assert strengths[0, 0] - strengths[0, 1] == pytest.approx(np.log(3), abs=1e-3)
    assert strengths.sum() == pytest.approx(0)
    assert np.exp(log_ties[0]) == pytest.approx(20 / np.sqrt(1200), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_choix(seed):
    random = np.random.default_rng(seed)
    pairs = np.array([(i, j) for i in range(5) for j in range(i + 1, 5)])
    counts = random.integers(1, 20, (1, len(pairs), 3)).astype(float)
    counts[:, :, 1] = 0
    games = []
    for (i, j), (lost, _, won) in zip(pairs, counts[0], strict=True):
        games += [(i, j)] * int(won) + [(j, i)] * int(lost)
    expected = choix.opt_pairwise(5, games, alpha=PENALTY, method="BFGS", tol=1e-10)
    strengths, _ = fit(counts, pairs, 5)
    assert strengths[0] == pytest.approx(expected - expected.mean(), abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_with_ties_it_is_the_maximum_of_the_likelihood_as_davidson_writes_it(seed):
    random = np.random.default_rng(seed)
    pairs = np.array([(0, 1), (0, 2), (1, 3), (2, 3)])
    counts = random.integers(0, 30, (1, 4, 3)).astype(float)

    def loss(values):
        worth, ties = np.exp(values[:4]), np.exp(values[4])
        total = PENALTY * (values**2).sum()
        for (i, j), (lost, tied, won) in zip(pairs, counts[0], strict=True):
            middle = ties * np.sqrt(worth[i] * worth[j])
            whole = worth[i] + worth[j] + middle
            total -= won * np.log(worth[i] / whole) + lost * np.log(worth[j] / whole) + tied * np.log(middle / whole)
        return total

    expected = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    strengths, log_ties = fit(counts, pairs, 4)
    assert strengths[0] == pytest.approx(expected[:4] - expected[:4].mean(), abs=1e-4)
    assert log_ties[0] == pytest.approx(expected[4], abs=1e-4)


def simulated(strengths, pairs, seed, prompts=40, raters=12, each=3):
    random = np.random.default_rng(seed)
    rows = []
    for prompt in range(prompts):
        for comparison, (i, j) in enumerate(pairs):
            for rater in random.permutation(raters)[:each]:
                apart = strengths[i] - strengths[j] + random.logistic()
                rows.append((prompt, rater, comparison, 2 if apart > 0.4 else 0 if apart < -0.4 else 1))
    prompt, rater, comparison, answer = np.array(rows).T
    return Votes(prompt, rater, answer), comparison


def test_the_order_is_found_and_equals_share_their_ranks():
    pairs = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
    votes, comparison = simulated([1.5, 0.0, 0.0, -1.5], pairs, seed=0)
    places = rank(votes, comparison, pairs, 4, resamples=200, seed=0)
    assert [place.rank for place in places] == [1, 2, 3, 4]
    assert places[0].system == 0 and places[-1].system == 3
    assert [place.rank_interval for place in places] == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert all(place.interval[0] < place.strength < place.interval[1] for place in places)


def test_one_that_always_wins_has_a_finite_strength():
    strengths, _ = fit(np.array([[[0.0, 0.0, 50.0]]]), np.array([[0, 1]]), 2)
    assert np.isfinite(strengths).all() and strengths[0, 0] > 2


def test_no_ranking_where_systems_are_not_connected():
    pairs = np.array([(0, 1), (2, 3)])
    votes, comparison = simulated([0, 0, 0, 0], pairs, seed=1, prompts=4)
    assert rank(votes, comparison, pairs, 4, resamples=100, seed=0) == []
