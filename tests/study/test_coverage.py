"""Simulated raters with known preferences: how often the 95 % intervals hold the truth."""

import numpy as np
import pytest

from timeloom.study.statistics import Votes, majority, majority_share, once, share_interval, spread, vote_share

STUDIES, RESAMPLES, EACH = 1000, 120, 5


def answers(prompts, raters, random):
    """Answers where a prompt favours the first system by `prompts`, and a rater leans to it by `raters`."""
    apart = 0.5 + prompts + raters + random.logistic(size=np.broadcast(prompts, raters).shape)
    return np.where(apart > 0.5, 2, np.where(apart < -0.5, 0, 1))


def truth(of_prompts, of_raters, random):
    """Vote share and majority share over all prompts and raters there could be."""
    given = answers(random.normal(0, of_prompts, (400_000, 1)), random.normal(0, of_raters, (400_000, EACH)), random)
    counts = np.stack([(given == answer).sum(axis=1) for answer in range(3)], axis=1)
    return given.mean() / 2, majority(counts).mean() / 2


def simulate(num_prompts, num_raters, of_prompts, of_raters, random):
    """A study in which every prompt is judged by EACH raters, who take turns."""
    prompts = np.repeat(np.arange(num_prompts), EACH)
    rounds = [random.permutation(num_raters) for _ in range(num_prompts)]
    raters = np.concatenate([order[:EACH] for order in rounds])
    leanings = random.normal(0, of_prompts, num_prompts)[prompts], random.normal(0, of_raters, num_raters)[raters]
    return Votes(prompts, np.unique(raters, return_inverse=True)[1], answers(*leanings, random))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_prompts", "num_raters", "of_prompts", "of_raters"), [(40, 12, 0.8, 0.5), (30, 20, 0.5, 0.0)]
)
def test_intervals_hold_the_truth_in_93_to_97_of_100_studies(num_prompts, num_raters, of_prompts, of_raters):
    random = np.random.default_rng(0)
    expected = truth(of_prompts, of_raters, random)
    held = np.zeros(2)
    for number in range(STUDIES):
        votes = simulate(num_prompts, num_raters, of_prompts, of_raters, random)
        for place, statistic in enumerate((vote_share(votes), majority_share(votes))):
            low, high = share_interval(float(once(statistic, votes)), spread(statistic, votes, RESAMPLES, 3 * number))
            held[place] += low <= expected[place] <= high
    assert ((held >= 0.93 * STUDIES) & (held <= 0.97 * STUDIES)).all(), held
