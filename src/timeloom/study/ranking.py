"""A ranking of more than two systems: the Bradley–Terry model with ties (Davidson 1970, JASA 65).

With strengths θ and D = e^((θi − θj)/2) + e^((θj − θi)/2) + ν, system i is preferred to j with probability
e^((θi − θj)/2) / D, and neither with ν / D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timeloom.study.statistics import FIRST, SECOND, Floats, Integers, Statistic, Votes, once, spread, student_quantile

PENALTY = 1e-3
"""Times the sum of squares, taken from the log-likelihood: one that always wins keeps a finite strength."""
STEPS = 60


@dataclass(frozen=True)
class Place:
    """Where a system stands."""

    system: int
    strength: float
    """θ; differences are log-odds, ties left out."""
    interval: tuple[float, float] | None
    rank: int
    """1 is best."""
    rank_interval: tuple[int, int] | None
    """Best and worst rank, given the 95 % intervals of all differences to it."""


def fit(counts: Floats, pairs: Integers, num_systems: int) -> tuple[Floats, Floats]:
    """The most likely strengths for each of B sets of votes.

    Args:
        counts: (B, C, 3), votes in each of C comparisons for the second system, for neither, for the first.
        pairs: (C, 2), the systems of each comparison.

    Returns: strengths (B, num_systems), and log ν (B,).
    """
    apart = np.zeros((len(pairs), num_systems))
    apart[np.arange(len(pairs)), pairs[:, 0]], apart[np.arange(len(pairs)), pairs[:, 1]] = 0.5, -0.5
    # Features of the three answers: log-odds are linear in (θ, log ν), so this is a concave multinomial regression.
    features = np.zeros((len(pairs), 3, num_systems + 1))
    features[:, SECOND, :-1], features[:, FIRST, :-1], features[:, 1, -1] = -apart, apart, 1
    values = np.zeros((len(counts), num_systems + 1))
    totals = counts.sum(axis=2)
    for _ in range(STEPS):
        logits = np.einsum("cak,bk->bca", features, values)
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        gradient = np.einsum("bca,cak->bk", counts - totals[..., None] * shares, features) - 2 * PENALTY * values
        mean = np.einsum("bca,cak->bck", shares, features)
        curvature = np.einsum("bc,bca,cak,cal->bkl", totals, shares, features, features)
        curvature -= np.einsum("bc,bck,bcl->bkl", totals, mean, mean)
        curvature += 2 * PENALTY * np.eye(num_systems + 1)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        largest = np.abs(step).max(axis=1, keepdims=True)
        values += step * np.minimum(
            1, 1 / np.maximum(largest, 1e-300)
        )  # no step beyond 1: far from the top Newton's overshoots
        if largest.max(initial=0) < 1e-10:
            break
    return values[:, :-1] - values[:, :-1].mean(axis=1, keepdims=True), values[:, -1]


def rank(
    votes: Votes, comparisons: Integers, pairs: Integers, num_systems: int, resamples: int, seed: int
) -> list[Place]:
    """The systems from best to worst; empty where they are not all connected by comparisons with votes.

    `comparisons` says for each vote which of the `pairs` (C, 2) it is about. Intervals are Student's on the bootstrap's
    variances over prompts and raters (see `spread`).
    """
    voted = pairs[np.unique(comparisons)]
    if not _connected(voted, num_systems):
        return []
    cells = np.zeros((len(votes), 3 * len(pairs)))
    cells[np.arange(len(votes)), 3 * comparisons + votes.answers] = 1

    def differences(weights_BN: Floats, _: Floats) -> Floats:
        strengths, _log_ties = fit((weights_BN @ cells).reshape(len(weights_BN), -1, 3), pairs, num_systems)
        # System K is the mean of all, which is 0.
        padded = np.concatenate([strengths, np.zeros((len(strengths), 1))], axis=1)
        return padded[:, :, None] - padded[:, None, :]

    statistic: Statistic = differences
    found = once(statistic, votes)
    strengths = found[:-1, -1]
    order = np.argsort(-strengths, kind="stable")
    if votes.num_prompts < 2:
        return [
            Place(int(system), float(strengths[system]), None, place, None) for place, system in enumerate(order, 1)
        ]
    spreads = spread(statistic, votes, resamples, seed)
    quantiles = np.vectorize(student_quantile, otypes=[float])(spreads.degrees)
    half = quantiles * np.sqrt(spreads.variance)
    return [
        Place(
            int(system),
            float(strengths[system]),
            (float(strengths[system] - half[system, -1]), float(strengths[system] + half[system, -1])),
            place,
            _ranks(found[:-1, system], half[:-1, system]),
        )
        for place, system in enumerate(order, 1)
    ]


def _ranks(ahead: Floats, half: Floats) -> tuple[int, int]:
    """Best and worst rank, from how far each system is ahead of this one (itself included, with 0)."""
    return 1 + int((ahead - half > 0).sum()), len(ahead) - int((ahead + half < 0).sum())


def _connected(pairs: NDArray[np.int64], num_systems: int) -> bool:
    reached = {0}
    for _ in range(num_systems):
        reached |= {int(other) for pair in pairs if reached & set(pair.tolist()) for other in pair}
    return len(reached) == num_systems
