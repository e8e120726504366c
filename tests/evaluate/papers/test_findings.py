import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.papers.findings import (
    FVD,
    LIKENESS,
    Claim,
    Comparison,
    compare,
    comparisons_of,
    difference,
    verdict,
)
from timeloom.evaluate.papers.models import IMAGE_MODEL, Group, Model


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 0.3), (0.01, 0.4)], "first"),
        ([(-0.3, -0.1), (-0.4, -0.01)], "second"),
        ([(0.1, 0.3), (-0.01, 0.4)], "undecided"),
        ([(0.1, 0.3), (-0.4, -0.01)], "undecided"),
        ([(0.0, 0.0)], "undecided"),
        ([None, (0.1, 0.2)], "first"),
        ([None, None], "undecided"),
    ],
)
def test_only_what_every_interval_says_is_decided(intervals, expected):
    assert verdict(*intervals) == expected


def runs(make, *marks, **options):
    return [make(mark, seed=seed, **options) for seed, mark in enumerate(marks)]


def test_a_difference_by_hand(make_judged):
    found = difference(runs(make_judged, "1111", "1110", "1100"), runs(make_judged, "0000", "0000", "0000"), "all")
    assert found["mean"] == pytest.approx(0.75)
    # Seeds differ by 1, 0.75 and 0.5: standard deviation 0.25, and Student's 97.5 % point for 2 degrees is 4.3027.
    half = 4.302653 * 0.25 / 3**0.5
    assert found["over_runs"] == pytest.approx((0.75 - half, 0.75 + half), abs=1e-6)
    # Prompts differ by 1, 1, 2/3 and 1/3: standard deviation √(11/36 · 1/3) = 0.3191, 3.1824 for 3 degrees.
    half = 3.182446 * 0.319142 / 2
    assert found["over_prompts"] == pytest.approx((0.75 - half, 0.75 + half), abs=1e-5)
    assert found["better"] == "first"


@pytest.mark.parametrize("metric", ["all", FVD, LIKENESS])
def test_a_difference_the_other_way_round_is_its_mirror(make_judged, metric):
    near = runs(make_judged, "1101" * 10, "1001" * 10, likeness=0.6)
    far = runs(make_judged, "0001" * 10, "0101" * 10, away=1.0)
    there, back = difference(near, far, metric), difference(far, near, metric)
    assert there["mean"] == pytest.approx(-back["mean"])
    for name in ("over_runs", "over_prompts"):
        assert there[name] == pytest.approx(tuple(-end for end in reversed(back[name])), rel=1e-3)
    assert there["over_prompts"][0] > 0 and there["mean"] > 0  # nearer, more alike, more often right


def test_distances_are_compared_resample_by_resample(make_judged):
    one = runs(make_judged, "1" * 40, away=1.0)
    same = difference(one, one, FVD)
    assert same["mean"] == 0 and same["over_prompts"] == (0, 0) and same["better"] == "undecided"
    assert same["over_runs"] is None
    few = difference(runs(make_judged, "1" * 8), runs(make_judged, "1" * 8, away=1.0), FVD)
    assert few["over_prompts"] is None and few["better"] == "undecided"


def test_one_run_stands_against_each_of_several(make_judged):
    found = difference(runs(make_judged, "1111", "1100"), runs(make_judged, "1000"), "all")
    assert found["mean"] == pytest.approx(0.5)  # of 0.75 and 0.25
    assert found["over_runs"] is not None


def test_what_the_paper_says_is_met_or_not(make_judged):
    near, far = runs(make_judged, "1" * 40, likeness=0.7), runs(make_judged, "0" * 40, away=1.0)
    claims = (Claim("all", True, "so"), Claim(FVD, False, "not so"))
    (found,) = compare({"near": near, "far": far}, [Comparison("near", "far", claims)])
    assert {name: one["verdict"] for name, one in found["metrics"].items()} == {
        "all": "agrees",
        FVD: "disagrees",
        LIKENESS: None,
    }
    assert found["metrics"][FVD]["paper"] == {"better": "second", "words": "not so"}


def test_clips_that_were_made_otherwise_are_not_compared(make_judged):
    judged = {"a": runs(make_judged, "1111"), "b": runs(make_judged, "1111", width=112)}
    (found,) = compare(judged, [Comparison("a", "b", ())])
    assert found["metrics"] == {} and found["refused"] == "not compared: width 64 and 112"


def test_trainings_meet_by_their_seeds(make_judged):
    first = [make_judged("1111", seed=seed) for seed in (0, 1, 2)]
    second = [make_judged("0000", seed=seed) for seed in (2, 1)][::-1]
    (found,) = compare({"a": first, "b": second}, [Comparison("a", "b", ())])
    assert found["metrics"]["all"]["over_runs"] == pytest.approx((1, 1))
    strangers = [make_judged("0000", seed=seed) for seed in (7, 8)]
    with pytest.raises(TimeloomError, match="no training seed in common"):
        compare({"a": first, "b": strangers}, [Comparison("a", "b", ())])


def model(mechanism, **options):
    return [Model("", None, "", mechanism, options, {})]


def test_comparisons_are_those_whose_models_are_there():
    everything = Group(
        {
            IMAGE_MODEL: model("none"),
            "shift": model("shift"),
            "attention": model("attention"),
            **{f"swap queries {q}": model("swap", queries=q) for q in ("none", "spatial", "temporal", "spatial_first")},
            "swap window 4": model("swap", queries="spatial", window=4),
        }
    )
    pairs = {(found.first, found.second) for found in comparisons_of(everything)}
    assert ("shift, videos", "attention, videos") in pairs
    assert ("swap queries spatial_first, videos", "shift, videos") in pairs
    assert ("swap queries temporal, videos", "swap queries none, videos") in pairs
    assert ("shift, images", f"{IMAGE_MODEL}, images") in pairs
    assert not any("window" in name for pair in pairs for name in pair)  # who asks is not all that it differs in
    alone = comparisons_of(Group({"shift": model("shift")}))
    assert {(found.first, found.second) for found in alone} == {
        (f"shift, {kind}", f"shift taken out, {kind}") for kind in ("videos", "images")
    }
    assert not comparisons_of(Group({IMAGE_MODEL: model("none")}))
    assert np.all([claim.words for found in comparisons_of(everything) for claim in found.claims])
