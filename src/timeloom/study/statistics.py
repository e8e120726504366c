"""What votes say: shares, majorities, agreement, and how sure they are, given who voted and on what.

Votes are arrays of one length N: `prompts` and `raters` (numbers from 0), and `answers`: 2 the first system, 1 no
preference, 0 the second. B counts resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[[Floats, Floats], Floats]
"""statistic(weights of votes (B, N), weights of prompts (B, P)) -> (B, ...)."""

SECOND, NEITHER, FIRST = range(3)
BUDGET = 1 << 22
"""Weights that are in memory at once."""


@dataclass(frozen=True)
class Votes:
    """The votes on one question. Prompts and raters are numbers from 0 without a gap."""

    prompts: Integers
    raters: Integers
    answers: Integers

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def num_prompts(self) -> int:
        return len(np.unique(self.prompts))

    @property
    def num_raters(self) -> int:
        return len(np.unique(self.raters))


def vote_share(votes: Votes) -> Statistic:
    """The share of votes for the first system; no preference is half a vote for each."""
    values = votes.answers / 2

    def statistic(weights_BN: Floats, _: Floats) -> Floats:
        return (weights_BN @ values) / weights_BN.sum(axis=1)

    return statistic


def majority_share(votes: Votes) -> Statistic:
    """The share of prompts on which the first system has the majority; a tie is half a prompt for each."""
    order = np.argsort(3 * votes.prompts + votes.answers, kind="stable")
    keys = (3 * votes.prompts + votes.answers)[order]
    cells, starts = np.unique(keys, return_index=True)

    def statistic(weights_BN: Floats, weights_BP: Floats) -> Floats:
        counts = np.zeros((len(weights_BN), 3 * weights_BP.shape[1]))
        counts[:, cells] = np.add.reduceat(weights_BN[:, order], starts, axis=1)
        counts_BP3 = counts.reshape(len(weights_BN), -1, 3)
        judged = weights_BP * (counts_BP3.sum(axis=2) > 0)
        return (judged * majority(counts_BP3) / 2).sum(axis=1) / judged.sum(axis=1)

    return statistic


def majority(counts: NDArray[np.generic]) -> Integers:
    """The answer of each pair, from its votes (..., 3): the one given most often.

    Where two are given equally often, or no preference most often, it is a tie: NEITHER.
    """
    most = counts == counts.max(axis=-1, keepdims=True)
    sole = most.sum(axis=-1) == 1
    return np.where(sole & most[..., FIRST], FIRST, np.where(sole & most[..., SECOND], SECOND, NEITHER))


@dataclass(frozen=True)
class Spread:
    """Variances of a statistic: by chance of the prompts, and what the raters' own leanings add to that."""

    prompts: Floats
    raters: Floats
    num_prompts: int
    num_raters: int

    @property
    def variance(self) -> Floats:
        return self.prompts + self.raters

    @property
    def degrees(self) -> Floats:
        """Degrees of freedom of the variance (Welch and Satterthwaite): few raters are few, however many votes."""
        parts = self.prompts**2 / max(1, self.num_prompts - 1) + self.raters**2 / max(1, self.num_raters - 1)
        return np.divide(self.variance**2, parts, out=np.full_like(parts, self.num_prompts - 1.0), where=parts > 0)


def spread(statistic: Statistic, votes: Votes, resamples: int, seed: int) -> Spread:
    """Bootstrap variance of `statistic` over prompts and raters, both drawn from many.

    Votes are crossed: those on one prompt resemble each other, and those of one rater do. Drawing prompts and raters at
    once counts the noise of single votes three times (Owen 2007, "The pigeonhole bootstrap"). So each is drawn alone,
    and single votes too, which both of the others contain: V = V(prompts) + V(raters) − V(votes), as for regressions
    clustered in two ways (Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering"). What raters
    add is at least 0.

    Returns: variances of the shape that `statistic` gives for one resample.
    """
    cells = np.unique(votes.prompts * (votes.raters.max() + 1) + votes.raters, return_inverse=True)[1]
    by_prompts = _variance(statistic, votes, votes.prompts, True, resamples, seed)
    by_raters = _variance(statistic, votes, votes.raters, False, resamples, seed + 1)
    by_votes = _variance(statistic, votes, cells, False, resamples, seed + 2)
    added = np.maximum(0, by_raters - by_votes) if votes.num_raters > 1 else np.zeros_like(by_prompts)
    return Spread(by_prompts, added, votes.num_prompts, votes.num_raters)


def _variance(
    statistic: Statistic, votes: Votes, groups: Integers, are_prompts: bool, resamples: int, seed: int
) -> Floats:
    """Variance of the statistic when `groups` of votes (a group's number for each) are drawn with replacement."""
    count, prompts = int(groups.max()) + 1, int(votes.prompts.max()) + 1
    found = []
    for weights_BG in _resampled(count, len(votes), resamples, seed):
        weights_BP = weights_BG if are_prompts else np.ones((len(weights_BG), prompts))
        found.append(statistic(weights_BG[:, groups], weights_BP))
    # n draws out of n vary by (n − 1) / n too little.
    return np.concatenate(found).var(axis=0) * count / max(1, count - 1)


def _resampled(groups: int, votes: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of `groups` is drawn in a resample: (B, groups), a few B at a time."""
    random = np.random.default_rng(seed)
    together = max(1, BUDGET // max(groups, votes))
    for first in range(0, resamples, together):
        size = min(together, resamples - first)
        yield random.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(np.float64)


def once(statistic: Statistic, votes: Votes) -> Floats:
    """The statistic of the votes as they are."""
    return statistic(np.ones((1, len(votes))), np.ones((1, int(votes.prompts.max()) + 1)))[0]


def share_interval(share: float, spread: Spread, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of a share with the bootstrap's variance; None where there are fewer than two prompts.

    The score interval (Wilson 1927) of as many independent draws as would have that variance, so it stays within
    [0, 1]; with Student's quantile in place of the normal one. Where all agree the variance is 0, and prompts count as
    the draws.
    """
    if spread.num_prompts < 2:
        return None
    quantile = student_quantile(float(spread.degrees), confidence)
    variance = float(spread.variance)
    draws = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(spread.num_prompts)
    middle = (share + quantile**2 / (2 * draws)) / (1 + quantile**2 / draws)
    inner = share * (1 - share) / draws + quantile**2 / (4 * draws**2)
    half = quantile / (1 + quantile**2 / draws) * inner**0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def student_quantile(degrees: float, confidence: float = 0.95) -> float:
    """Student's two-sided quantile: 1.96 for many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, degrees), (1 + confidence) / 2))


def krippendorff_alpha(units: Integers, answers: Integers) -> float | None:
    """Agreement of raters on nominal answers: 1 complete, 0 as by chance (Krippendorff 2011, "Computing alpha").

    `units` says for each answer on what it was given. None where no unit has two answers, or all answers are equal.
    """
    labels, places = np.unique(units, return_inverse=True)
    counts = np.zeros((len(labels), int(answers.max(initial=0)) + 1))
    np.add.at(counts, (places, answers), 1)
    counts = counts[counts.sum(axis=1) >= 2]
    sizes, totals = counts.sum(axis=1), counts.sum(axis=0)
    total = totals.sum()
    expected = (total**2 - (totals**2).sum()) / (total - 1) if total else 0.0
    if expected == 0:
        return None
    observed = ((sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)).sum()
    return float(1 - observed / expected)
