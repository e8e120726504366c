"""The page stands alone, and what it shows is what the result says."""

import re

import numpy as np

from timeloom.evaluate.metrics import FeatureSet, find_metric
from timeloom.evaluate.protocol import Published
from timeloom.evaluate.report import curves, numbers_table

RNG = np.random.default_rng(0)


def measured(count):
    fake, real = (FeatureSet.of(RNG.normal(size=(count, 3))) for _ in range(2))
    return find_metric("fvd").measure(fake, real).to_json()


def test_distances_are_drawn_against_the_number_of_videos():
    one = measured(320)
    drawing = curves([one])
    assert drawing.count("<svg") == 1 and "infinitely many" in drawing
    assert len(one["details"]["infinite"]["distances"]) == 8
    assert curves([measured(20)]) == ""


def test_published_figures_carry_their_marks():
    result = {"name": "<ours>", "results": [{**measured(40), "missing": 3}]}
    published = [
        Published(model="A", mark="text", values={"fvd": 410.0}),
        Published(model="B", mark="memory", values={"clipsim": 0.3}),
    ]
    table = numbers_table(result, published)
    assert "&lt;ours&gt;" in table and "<mark>3 missing</mark>" in table
    assert re.search(r"<td>A <small>\[text\]</small></td><td>410</td>", table)
    assert re.search(r"<td>B <small>\[memory\]</small></td><td></td>", table)
    assert "unverified recollection" in table and "quoted by later papers" not in table
