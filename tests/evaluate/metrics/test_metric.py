"""Every metric keeps the contract: what it needs, what it answers, what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import METRICS, FeatureSet, find_metric

N = 64


def quick(metric):
    return replace(metric, replicates=8) if hasattr(metric, "replicates") else metric


def videos(missing=None, bad=(), shape=(4, 6), label="fake"):
    features = np.random.default_rng(0).normal(size=(N, *shape))
    features[list(bad)] = np.nan
    return FeatureSet([f"{place}.mp4" for place in range(N)], lambda places: features[places], missing, label)


@pytest.fixture(params=sorted(METRICS))
def metric(request):
    return quick(find_metric(request.param))


def own(metric, **options):
    """Of the shape that the metric takes: one number a video where no network looks."""
    return videos(**options, shape=(1,) if metric.network == "pixels" else (4, 6))


def reference(metric):
    return {"videos": videos, "texts": lambda: videos(shape=(6,)), None: lambda: None}[metric.reference]()


def test_a_result_carries_all_that_must_be_said(metric):
    said = metric.measure(own(metric, missing={"gone.mp4": "cut short"}), reference(metric)).to_json()
    assert json.loads(json.dumps(said, allow_nan=False))["value"] == said["value"]
    assert (said["metric"], said["count"], said["missing"], said["better"]) == (metric.name, N, 1, metric.better)
    assert said["reference_count"] == (N if metric.reference else None)
    assert said["protocol"]["network"] == metric.network and "seed" in said["protocol"]


def test_the_same_twice(metric):
    assert metric.measure(own(metric), reference(metric)) == metric.measure(own(metric), reference(metric))


def test_videos_that_are_not_finite_are_named_and_never_averaged(metric):
    with pytest.raises(TimeloomError, match=r"fake: 2 of 64 videos .* not finite: 3\.mp4, 40\.mp4"):
        metric.measure(own(metric, bad=(3, 40)), reference(metric))


def test_no_videos_are_too_few(metric):
    none = FeatureSet([], lambda places: np.zeros((0, 4, 6)), {"a.mp4": "no moov", "b.mp4": "no moov"}, "fake")
    with pytest.raises(TimeloomError, match=r"fake: .* needs at least \d+ videos, not 0 \(2 more have no features\)"):
        metric.measure(none, reference(metric))


def test_an_unknown_metric_suggests_the_nearest():
    with pytest.raises(TimeloomError, match="Did you mean 'fvd'"):
        find_metric("fvdd")


def test_names_stand_for_one_video_and_features_have_one_shape():
    with pytest.raises(TimeloomError, match="1 names stand for more than one video: a"):
        FeatureSet(["a", "b", "a"], lambda places: np.zeros((len(places), 2)))
    with pytest.raises(TimeloomError, match=r"\(N, D\) or \(N, F, D\), not \(3,\)"):
        FeatureSet.of(np.zeros(3))
    uneven = FeatureSet(["a", "b"], lambda places: np.zeros((len(places), 2 + places[0])))
    uneven.take(np.array([0]))
    with pytest.raises(TimeloomError, match=r"shape \(1, 3\) where \(1, 2\) was expected: b"):
        uneven.take(np.array([1]))
