"""What is measured, by name.

    from timeloom.evaluate.metrics import FeatureSet, find_metric
    find_metric("fvd").measure(FeatureSet.of(generated), FeatureSet.of(real)).value

A new metric is a file with a `Metric`, and a line here.
"""

from __future__ import annotations

from timeloom.errors import unknown_name
from timeloom.evaluate.metrics.clip_similarity import ClipSimilarity
from timeloom.evaluate.metrics.features import FeatureSet
from timeloom.evaluate.metrics.fidelity import FidelityMetric
from timeloom.evaluate.metrics.frechet import FrechetMetric
from timeloom.evaluate.metrics.inception_score import InceptionScore
from timeloom.evaluate.metrics.kernel_distance import KernelMetric
from timeloom.evaluate.metrics.metric import Metric, Result
from timeloom.evaluate.metrics.moments import Moments

__all__ = ["METRICS", "FeatureSet", "Metric", "Moments", "Result", "find_metric"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        FrechetMetric("fvd", "i3d"),
        FrechetMetric("fid", "inception"),
        FrechetMetric("clip-fid", "clip"),
        KernelMetric("kid", "inception"),
        KernelMetric("kvd", "i3d"),
        InceptionScore("is", "inception"),
        InceptionScore("is-video", "c3d"),
        ClipSimilarity("clipsim", "clip"),
        FidelityMetric("psnr", "pixels"),
        FidelityMetric("ssim", "pixels"),
        FidelityMetric("flicker", "pixels", direction="lower"),
    )
}
"""With their usual options; `dataclasses.replace` changes one."""


def find_metric(name: str) -> Metric:
    """A metric by its name. Raises TimeloomError for an unknown one, with the nearest."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
