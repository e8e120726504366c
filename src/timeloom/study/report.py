"""From votes to what the raters prefer: report.json as a dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from timeloom.errors import TimeloomError
from timeloom.study.design import Study
from timeloom.study.desk import Desk
from timeloom.study.page import rater_name
from timeloom.study.ranking import rank
from timeloom.study.statistics import (
    FIRST,
    NEITHER,
    SECOND,
    Integers,
    Votes,
    krippendorff_alpha,
    majority,
    majority_share,
    once,
    share_interval,
    spread,
    vote_share,
)
from timeloom.study.store import Store

MAJORITY_RULE = (
    "A pair goes to the answer that most of its raters gave. Where two answers were given equally often, or no "
    "preference most often, it is a tie, and counts half for each system."
)
VOTE_RULE = "No preference counts as half a vote for each system."
INTERVAL_RULE = (
    "95 %: bootstrap over prompts and raters, V = V(prompts) + max(0, V(raters) − V(votes)); score interval of a share "
    "with that variance, Student's quantile. For a single prompt there is none."
)
ALPHA_RULE = "Krippendorff's alpha on three nominal answers: 1 is complete agreement, 0 what chance gives."
RANKING_RULE = (
    "Bradley–Terry with ties (Davidson) on all votes; strengths are log-odds and sum to 0; intervals from the same "
    "bootstrap; the ranks that the intervals of all differences allow."
)


@dataclass(frozen=True)
class Rules:
    """When a rater is left out, and how intervals are drawn."""

    min_attention: float = 0.75
    min_seconds: float = 1.0
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One vote: by whom, on what, and whether the first system's clip, the second's or neither was chosen."""

    rater: int
    pair: int
    question: int
    answer: int
    on_left: bool | None
    """Whether the choice was the left side; None for no preference."""
    seconds: float


def read_rows(desk: Desk) -> list[Row]:
    """All votes."""
    found = desk.connection.execute(
        "SELECT rater, pair, flipped, question, choice, milliseconds FROM votes JOIN tasks USING (task) "
        "ORDER BY rater, place, question"
    )
    rows = []
    for rater, pair, flipped, question, choice, milliseconds in found:
        on_left = None if choice == "none" else choice == "left"
        answer = NEITHER if on_left is None else FIRST if on_left != bool(flipped) else SECOND
        rows.append(Row(rater, pair, question, answer, on_left, milliseconds / 1000))
    return rows


def make_report(study: Study, store: Store, rules: Rules) -> dict[str, Any]:
    """What report.json says.

    Raises:
        TimeloomError: there are no votes, or all raters are left out.
    """
    rows = store.do(read_rows).result()
    if not rows:
        raise TimeloomError(f"{store.path.parent}: has no votes yet.")
    excluded = exclude(rows, study, rules)
    left_out = {one["number"] for one in excluded}
    counted = [row for row in rows if row.rater not in left_out and not study.pairs[row.pair].attention]
    if not counted:
        reasons = "; ".join(sorted({one["reason"] for one in excluded})) or "they judged attention pairs only"
        raise TimeloomError(
            f"{store.path.parent}: no vote counts, as all {len(left_out)} raters are left out ({reasons})."
        )
    raters = store.do(_read_raters).result()
    votes = Counter((row.pair, row.question) for row in counted)
    wanted = [(pair, question) for pair in _judged(study) for question in range(len(study.questions))]
    return {
        "title": study.title,
        "study_sha256": study.fingerprint,
        "systems": [system.model_dump() for system in study.systems],
        "rules": {
            "majority": MAJORITY_RULE,
            "votes": VOTE_RULE,
            "intervals": INTERVAL_RULE,
            "alpha": ALPHA_RULE,
            "ranking": RANKING_RULE,
            "min_attention": rules.min_attention,
            "min_seconds": rules.min_seconds,
            "resamples": rules.resamples,
            "seed": rules.seed,
        },
        "votes": {
            "given": len(rows),
            "on_attention_pairs": sum(study.pairs[row.pair].attention for row in rows),
            "counted": len(counted),
            "wanted_per_pair": study.raters_per_pair,
            "pairs_with_fewer": sum(votes[one] < study.raters_per_pair for one in wanted),
            "pairs_in_all": len(wanted),
        },
        "raters": {
            "came": sum(machines > 0 for _, machines, _ in raters) or len({row.rater for row in rows}),
            "voted": len({row.rater for row in rows}),
            "counted": len({row.rater for row in counted}),
            "finished": [rater_name(number) for number, _, finished in raters if finished],
            "excluded": excluded,
            "on_several_browsers": [rater_name(number) for number, machines, _ in raters if machines > 1],
        },
        "left_out": list(study.left_out),
        "questions": [_question(study, number, counted, rules) for number in range(len(study.questions))],
    }


def _read_raters(desk: Desk) -> list[tuple[int, int, int]]:
    return [
        tuple(row) for row in desk.connection.execute("SELECT rater, machines, finished FROM raters ORDER BY rater")
    ]


def _judged(study: Study) -> list[int]:
    return [number for number, pair in enumerate(study.pairs) if not pair.attention]


def exclude(rows: Sequence[Row], study: Study, rules: Rules) -> list[dict[str, Any]]:
    """Raters who are left out: why, and how many votes on other than attention pairs go with them."""
    excluded = []
    for number in sorted({row.rater for row in rows}):
        own = [row for row in rows if row.rater == number]
        checks = [row.answer == FIRST for row in own if study.pairs[row.pair].attention]
        others = [row.seconds for row in own if not study.pairs[row.pair].attention]
        reason = None
        if checks and sum(checks) < rules.min_attention * len(checks):
            share = f"{100 * rules.min_attention:g} %"
            reason = f"{sum(checks)} of {len(checks)} answers on attention pairs right, fewer than {share}"
        elif others and median(others) < rules.min_seconds:
            reason = f"median answer after {median(others):.2f} s, less than {rules.min_seconds:g} s"
        if reason is not None:
            excluded.append({"number": number, "rater": rater_name(number), "reason": reason, "votes": len(others)})
    return excluded


def _question(study: Study, number: int, counted: Sequence[Row], rules: Rules) -> dict[str, Any]:
    rows = [row for row in counted if row.question == number]
    question = study.questions[number]
    sides = [row.on_left for row in rows if row.on_left is not None]
    pairs = np.array([row.pair for row in rows], dtype=np.int64)
    return {
        "name": question.name,
        "text": question.text,
        "votes": len(rows),
        "alpha": krippendorff_alpha(pairs, np.array([row.answer for row in rows], dtype=np.int64)) if rows else None,
        "left_share": sum(sides) / len(sides) if sides else None,
        "median_seconds": median(row.seconds for row in rows) if rows else None,
        "comparisons": [_compare(study, systems, rows, rules) for systems in study.comparisons],
        "ranking": _rank(study, rows, rules) if rows and len(study.systems) > 2 else None,
    }


def _compare(study: Study, systems: tuple[int, int], rows: Sequence[Row], rules: Rules) -> dict[str, Any]:
    """Two systems on one question. Shares are the first's; the ratio is the second's parameters to the first's."""
    rows = [row for row in rows if study.pairs[row.pair].systems == systems]
    first, second = (study.systems[system] for system in systems)
    ratio = second.parameters / first.parameters if first.parameters and second.parameters else None
    found: dict[str, Any] = {"systems": [first.name, second.name], "parameters_ratio": ratio, "prompts": 0, "raters": 0}
    if not rows:
        return found
    votes = _votes(study, rows)
    counts = np.zeros((votes.num_prompts, 3), dtype=np.int64)
    np.add.at(counts, (votes.prompts, votes.answers), 1)
    shares = {}
    for name, statistic in (("majority_share", majority_share(votes)), ("vote_share", vote_share(votes))):
        value = float(once(statistic, votes))
        interval = share_interval(value, spread(statistic, votes, rules.resamples, rules.seed))
        shares[name] = {"value": value, "interval": interval}
    return {
        **found,
        "prompts": votes.num_prompts,
        "raters": votes.num_raters,
        "majority": _named(np.bincount(majority(counts), minlength=3)),
        "votes": _named(counts.sum(axis=0)),
        **shares,
    }


def _named(counts: Integers) -> dict[str, int]:
    return {"first": int(counts[FIRST]), "neither": int(counts[NEITHER]), "second": int(counts[SECOND])}


def _votes(study: Study, rows: Sequence[Row]) -> Votes:
    """The rows as arrays, prompts and raters numbered from 0."""
    prompts = np.unique([study.pairs[row.pair].prompt for row in rows], return_inverse=True)[1]
    raters = np.unique([row.rater for row in rows], return_inverse=True)[1]
    return Votes(prompts, raters, np.array([row.answer for row in rows], dtype=np.int64))


def _rank(study: Study, rows: Sequence[Row], rules: Rules) -> list[dict[str, Any]] | None:
    comparisons = {systems: place for place, systems in enumerate(study.comparisons)}
    about = np.array([comparisons[study.pairs[row.pair].systems] for row in rows], dtype=np.int64)
    pairs = np.array(list(comparisons), dtype=np.int64)
    places = rank(_votes(study, rows), about, pairs, len(study.systems), rules.resamples, rules.seed)
    return [
        {
            "system": study.systems[place.system].name,
            "parameters": study.systems[place.system].parameters,
            "strength": place.strength,
            "interval": place.interval,
            "rank": place.rank,
            "rank_interval": place.rank_interval,
        }
        for place in places
    ] or None
