"""What the papers find, and whether the same is found here: differences, two intervals each, and a verdict.

A difference has two sources of chance, other training runs and other prompts; only what both intervals say is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeloom.errors import TimeloomError
from timeloom.evaluate.digits_metrics import DISTANCES_OF_IMAGES, DISTANCES_OF_VIDEOS, LIKENESS
from timeloom.evaluate.intervals import student
from timeloom.evaluate.metrics import METRICS
from timeloom.evaluate.papers.cases import Judged
from timeloom.evaluate.papers.models import IMAGE_MODEL, Group, Model

Interval = tuple[float, float]

FVD, FID = DISTANCES_OF_VIDEOS[0], DISTANCES_OF_IMAGES[0]
EQUAL = ("num_frames", "fps", "height", "width", "num_inference_steps", "guidance_scale", "sampler", "seed", "split")
"""Of the protocol: where these differ, nothing is compared."""


@dataclass(frozen=True)
class Claim:
    """What a paper says of one metric."""

    metric: str
    first: bool
    """Whether the first of the two is better; else the second."""
    words: str


@dataclass(frozen=True)
class Comparison:
    """Two cases, and what the papers claim of them; of the rest only the difference is told."""

    first: str
    second: str
    claims: tuple[Claim, ...]


def comparisons_of(group: Group) -> list[Comparison]:
    """Those whose models are at hand."""
    shift, attention, swap = (group.first_of(name) for name in ("shift", "attention", "swap"))
    found = []
    if shift and attention:
        found += [
            _beside(
                f"{shift}, videos",
                f"{attention}, videos",
                ("all", True, "Latent-Shift: the shift does better in most cases"),
                (LIKENESS, True, "Latent-Shift: CLIPSIM 0.2773 against 0.2756, on MSR-VTT"),
                (FVD, False, "Latent-Shift: FVD 360.04 against 358.34, on UCF-101"),
            ),
            _beside(
                f"{shift}, images",
                f"{attention}, images",
                ("all", True, "Latent-Shift: with attention, images collapse"),
            ),
        ]
    if shift and swap:
        words = "VideoFactory: CLIPSIM 0.3005 where Latent-Shift has 0.2773, on MSR-VTT; other data and size"
        found.append(_beside(f"{swap}, videos", f"{shift}, videos", (LIKENESS, True, words)))
    if swap and attention:
        found.append(_beside(f"{swap}, videos", f"{attention}, videos"))
    if shift:
        if IMAGE_MODEL in group.runs:
            found.append(_beside(f"{shift}, images", f"{IMAGE_MODEL}, images"))
        needs = "Latent-Shift: generation cannot do without the shift"
        found += [
            _beside(f"{shift}, videos", f"{shift} taken out, videos", ("all", True, needs), (FVD, True, needs)),
            _beside(
                f"{shift}, images",
                f"{shift} taken out, images",
                ("all", True, "Latent-Shift: the shift's zeros are needed for images too"),
            ),
        ]
    if shift and attention:
        words = "Latent-Shift: taking attention out does not bring images back"
        found.append(_beside(f"{shift}, images", f"{attention} taken out, images", ("all", True, words)))
    return found + _roles(group) + _parts(group)


def _beside(first: str, second: str, *claims: tuple[str, bool, str]) -> Comparison:
    return Comparison(first, second, tuple(Claim(*claim) for claim in claims))


def _roles(group: Group) -> list[Comparison]:
    """Swap-CA's ablation, over models that differ in who asks alone."""
    swap = group.first_of("swap")
    if swap is None:
        return []
    usual = _but(group.runs[swap][0], "queries")
    asks = {
        models[0].options.get("queries"): label
        for label, models in group.runs.items()
        if models[0].mechanism == "swap" and _but(models[0], "queries") == usual
    }
    both = "VideoFactory: swapping the roles helps both"
    swapping = ((LIKENESS, True, both), (FVD, True, both))
    pairs: tuple[tuple[str, str, tuple[tuple[str, bool, str], ...]], ...] = (
        ("temporal", "none", ((LIKENESS, True, "VideoFactory: where time asks, CLIPSIM gets better"),)),
        ("spatial", "none", ((FVD, True, "VideoFactory: where space asks, FVD gets much better"),)),
        *(("spatial_first", other, swapping) for other in ("none", "temporal", "spatial")),
    )
    return [
        _beside(f"{asks[first]}, videos", f"{asks[second]}, videos", *claims)
        for first, second, claims in pairs
        if first in asks and second in asks
    ]


def _but(model: Model, *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in model.options.items() if name not in left_out}


def _parts(group: Group) -> list[Comparison]:
    """Swap-CA beside models that differ from it in their windows alone, or in their temporal skips alone."""
    swap = group.first_of("swap")
    if swap is None:
        return []
    usual = group.runs[swap][0]
    found = []
    for label, (model, *_) in group.runs.items():
        if model.mechanism != "swap" or label == swap:
            continue
        if _but(model, "window") == _but(usual, "window"):
            found.append(_beside(f"{swap}, videos", f"{label}, videos"))  # "loses nothing" is no direction
        elif _but(model, "skips") == _but(usual, "skips"):
            words = "VideoFactory: temporal skip connections help"
            found.append(_beside(f"{swap}, videos", f"{label}, videos", (FVD, True, words)))
    return found


# Numbers


def shares(judged: list[Judged], metric: str) -> NDArray[np.float64]:
    """(runs, prompts): 1 where a clip is right."""
    return np.array([[float(mark) for mark in one.result["marks"][metric]] for one in judged])


def metric_values(judged: list[Judged], metric: str) -> NDArray[np.float64]:
    """(runs,)."""
    return np.array([one.metrics[metric]["value"] for one in judged])


def verdict(*intervals: Interval | None) -> str:
    """Whether a difference lies on the first one's side of zero, "first", on the other, or neither for sure."""
    known = [interval for interval in intervals if interval is not None]
    if known and all(low > 0 for low, _ in known):
        return "first"
    return "second" if known and all(high < 0 for _, high in known) else "undecided"


def difference(first: list[Judged], second: list[Judged], metric: str) -> dict[str, Any]:
    """By how much the first is better: shares and likenesses prompt by prompt, distances resample by resample; and run
    by run, where there are several. One run stands against each of several."""
    if metric in METRICS:
        better = 1 if METRICS[metric].better == "higher" else -1
        runs = better * (metric_values(first, metric) - metric_values(second, metric))
        over_prompts = _over_prompts(first, second, metric, better)
    else:
        each = shares(first, metric) - shares(second, metric)
        runs, over_prompts = each.mean(axis=1), student(each.mean(axis=0).tolist())
    over_runs = student(runs.tolist()) if len(runs) > 1 else None
    return {
        "mean": float(runs.mean()),
        "over_runs": over_runs,
        "over_prompts": over_prompts,
        "better": verdict(over_runs, over_prompts) if over_prompts else "undecided",
    }


def _over_prompts(first: list[Judged], second: list[Judged], metric: str, better: int) -> Interval | None:
    if metric == LIKENESS:
        each = [np.mean([one.looked.similarities() for one in judged], axis=0) for judged in (first, second)]
        return student((each[0] - each[1]).tolist())
    if metric not in (FVD, FID):
        return None
    drawn = [np.mean([one.resampled for one in judged], axis=0) for judged in (first, second)]
    if not len(drawn[0]):
        return None
    apart = better * (drawn[0] - drawn[1])
    value = better * (metric_values(first, metric).mean() - metric_values(second, metric).mean())
    low, high = np.quantile(apart - apart.mean(), [0.025, 0.975])
    return float(value + low), float(value + high)


def compare(judged: Mapping[str, list[Judged]], comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Every comparison, ready for JSON: of each metric the difference, the paper's word, and whether it is so here."""
    found = []
    for comparison in comparisons:
        first, second = _paired(judged[comparison.first], judged[comparison.second])
        entry: dict[str, Any] = {"first": comparison.first, "second": comparison.second}
        if unequal := _unequal(first[0], second[0]):
            found.append({**entry, "refused": f"not compared: {unequal}", "metrics": {}})
            continue
        claims = {claim.metric: claim for claim in comparison.claims}
        distance = FVD if FVD in first[0].metrics else FID
        names = ["all", distance, *([LIKENESS] if distance == FVD else [])]
        entry["metrics"] = {name: _judge(difference(first, second, name), claims.get(name)) for name in names}
        found.append(entry)
    return found


def _paired(first: list[Judged], second: list[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Of two trainings with several runs, those whose seed both have."""
    if min(len(first), len(second)) == 1:
        return first, second
    common = {one.model.seed for one in first} & {one.model.seed for one in second}
    if not common:
        raise TimeloomError(f"{first[0].model.label} and {second[0].model.label} have no training seed in common.")
    return [one for one in first if one.model.seed in common], [one for one in second if one.model.seed in common]


def _judge(found: dict[str, Any], claim: Claim | None) -> dict[str, Any]:
    if claim is None:
        return {**found, "paper": None, "verdict": None}
    wanted = "first" if claim.first else "second"
    says = {"undecided": "undecided", wanted: "agrees"}.get(found["better"], "disagrees")
    return {**found, "paper": {"better": wanted, "words": claim.words}, "verdict": says}


def _unequal(first: Judged, second: Judged) -> str:
    """What differs in how the clips of two cases were made."""
    here, there = first.result["protocol"], second.result["protocol"]
    return ", ".join(f"{name} {here[name]} and {there[name]}" for name in EQUAL if here[name] != there[name])
