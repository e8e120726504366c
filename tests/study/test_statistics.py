import itertools

import krippendorff
import numpy as np
import pytest

from timeloom.study.statistics import (
    FIRST,
    NEITHER,
    SECOND,
    Spread,
    Votes,
    krippendorff_alpha,
    majority,
    majority_share,
    once,
    share_interval,
    spread,
    vote_share,
)


def votes(*rows):
    """From rows of (prompt, rater, answer)."""
    return Votes(*np.array(rows, dtype=np.int64).T)


def random_votes(seed, prompts=12, raters=6, each=4):
    random = np.random.default_rng(seed)
    rows = [(p, r, random.integers(3)) for p in range(prompts) for r in random.permutation(raters)[:each]]
    return votes(*rows)


def test_majority_by_hand():
    # counts for the second, for neither, for the first
    cases = {
        (1, 1, 3): FIRST,
        (3, 0, 2): SECOND,
        (2, 1, 2): NEITHER,
        (1, 3, 1): NEITHER,
        (0, 2, 2): NEITHER,
        (0, 5, 0): NEITHER,
    }
    assert majority(np.array(list(cases))).tolist() == list(cases.values())


def test_shares_by_hand():
    # prompt 0: first, first, second; prompt 1: second, neither; prompt 2: neither
    found = votes((0, 0, 2), (0, 1, 2), (0, 2, 0), (1, 0, 0), (1, 1, 1), (2, 2, 1))
    assert once(vote_share(found), found) == pytest.approx((1 + 1 + 0 + 0 + 0.5 + 0.5) / 6)
    assert once(majority_share(found), found) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_shares_are_those_of_a_loop_over_resampled_votes():
    found = random_votes(0)
    random = np.random.default_rng(1)
    weights = random.integers(0, 3, (5, len(found))).astype(float)
    prompts = random.integers(1, 3, (5, found.num_prompts)).astype(float)
    for row, (own, each) in enumerate(zip(weights, prompts, strict=True)):
        total = sum(w * a / 2 for w, a in zip(own, found.answers, strict=True)) / own.sum()
        assert vote_share(found)(weights, prompts)[row] == pytest.approx(total)
        won = judged = 0.0
        for prompt in range(found.num_prompts):
            counts = [own[(found.prompts == prompt) & (found.answers == answer)].sum() for answer in range(3)]
            if sum(counts):
                best = [answer for answer in range(3) if counts[answer] == max(counts)]
                judged += each[prompt]
                won += each[prompt] * (best[0] / 2 if len(best) == 1 else 0.5)
        assert majority_share(found)(weights, prompts)[row] == pytest.approx(won / judged)


def test_the_variance_is_the_textbooks_where_votes_do_not_resemble_each_other():
    """One vote a prompt, each by another rater: the variance of a mean of N draws."""
    random = np.random.default_rng(2)
    count = 80
    found = Votes(np.arange(count), np.arange(count), random.integers(0, 3, count))
    expected = (found.answers / 2).var(ddof=1) / count
    assert spread(vote_share(found), found, 4000, 0).variance == pytest.approx(expected, rel=0.12)


def test_raters_who_lean_widen_the_interval():
    leaning = votes(*[(p, r, 2 if r < 3 else 0) for p, r in itertools.product(range(30), range(6))])
    apart = spread(vote_share(leaning), leaning, 1000, 0)
    assert apart.prompts == pytest.approx(0, abs=1e-12)  # every prompt says the same
    assert apart.raters == pytest.approx(0.25 / 5, rel=0.15)  # six raters of 0 or 1
    assert apart.degrees == pytest.approx(5)
    low, high = share_interval(0.5, apart)
    assert low < 0.15 and high > 0.85


def test_same_seed_same_interval_and_order_does_not_matter():
    found = random_votes(3)
    one, again = (spread(vote_share(found), found, 200, 7).variance for _ in range(2))
    assert one == again
    assert spread(vote_share(found), found, 200, 8).variance != one


def test_wilson_by_hand():
    """Half of 100 independent draws, normal quantile: Wilson's 0.404 … 0.596."""
    low, high = share_interval(0.5, Spread(np.float64(0.0025), np.float64(0), 10**7, 1))
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_agreement_of_all_has_an_interval_within_bounds():
    found = votes(*[(p, r, 2) for p, r in itertools.product(range(20), range(5))])
    apart = spread(majority_share(found), found, 200, 0)
    low, high = share_interval(1.0, apart)
    assert high == 1 and 0.7 < low < 0.9  # Wilson for 20 of 20 is 0.839; Student's quantile makes it wider
    assert share_interval(1.0, Spread(np.float64(0), np.float64(0), 1, 5)) is None


def test_alpha_by_hand():
    """Krippendorff 2011, example B: two observers, nominal, 10 units: alpha = 0.095."""
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    units = np.tile(np.arange(10), 2)
    assert krippendorff_alpha(units, np.array(first + second)) == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_that_of_the_krippendorff_package(seed):
    found = random_votes(seed)
    table = np.full((found.num_raters, found.num_prompts), np.nan)
    table[found.raters, found.prompts] = found.answers
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal", value_domain=[0, 1, 2])
    assert krippendorff_alpha(found.prompts, found.answers) == pytest.approx(expected)


def test_alpha_is_undefined_without_a_second_answer_or_a_second_vote():
    assert krippendorff_alpha(np.array([0, 0, 1, 1]), np.array([2, 2, 2, 2])) is None
    assert krippendorff_alpha(np.array([0, 1, 2]), np.array([0, 1, 2])) is None
    assert krippendorff_alpha(np.array([], dtype=int), np.array([], dtype=int)) is None
