import json

import pytest

from timeloom.evaluate.papers.findings import FVD, LIKENESS, Claim, Comparison, compare
from timeloom.evaluate.papers.page import case_table, difference_cell, finding_lines, share_cell, value_cell, write_page


def numbers(judged):
    return [one.numbers() for one in judged]


@pytest.fixture
def report(make_judged):
    judged = {
        "shift, videos": [make_judged("1110" * 10, seed=seed, likeness=0.7) for seed in (0, 1)],
        "attention, videos": [make_judged("0100" * 10, seed=seed, away=1.0) for seed in (0, 1)],
        "shift, videos, ddim, 5 steps": [make_judged("1100" * 10)],
    }
    claims = (Claim("all", True, "The paper: better"), Claim(FVD, False, "The paper: worse"))
    return {
        "name": "trial",
        "title": "A trial",
        "command": "timeloom evaluate papers",
        "machine": {"processor": "none", "threads": 1, "device": "cpu"},
        "version": "Timeloom 0",
        "budget": {"num_prompts": 40, "sampler": "ddpm", "steps": 50, "guidance": 3.0},
        "models": {
            "shift": [{"name": "s", "sha256": "0" * 64, "training": None, "num_frames": 16, "width": 64, "height": 64}]
        },
        "left_out": ["runs/x: no model yet"],
        "cases": {
            name: {"kind": "videos", "sampling": "ddim, 5 steps" if "ddim" in name else None, "runs": numbers(runs)}
            for name, runs in judged.items()
        },
        "comparisons": compare(judged, [Comparison("shift, videos", "attention, videos", claims)]),
        "steps": {
            name: {"parameters": 10 + i, "step_s": [0.1 + i, 0.2 + i]} for i, name in enumerate(("shift", "attention"))
        },
        "pictures": ["videos"],
    }


def test_shares_say_how_sure_they_are(make_judged):
    half = numbers([make_judged("1" * 20 + "0" * 20), make_judged("1" * 20 + "0" * 20)])
    assert share_cell(half, "all") == "50.0 (50 to 50; 35 to 65)"
    assert share_cell(half[:1], "all") == "50.0 (one run; 35 to 65)"
    assert share_cell(numbers([make_judged("1111"), make_judged("0000")]), "all").startswith("50.0 (0 to 100; ")


def test_values_say_how_sure_they_are_or_that_nobody_knows(make_judged):
    assert value_cell(numbers([make_judged("1" * 40, likeness=0.5)]), LIKENESS).startswith("0.505 (one run; 0.50")
    assert value_cell(numbers([make_judged("1" * 8)]), FVD).endswith("(one run; –)")


def test_differences_have_signs():
    found = {"mean": -0.25, "over_runs": None, "over_prompts": (-0.5, 0.0)}
    assert difference_cell("all", found) == "−25.0 (one run; −50 to +0)"
    assert difference_cell(LIKENESS, found) == "−0.250 (one run; −0.500 to +0.000)"


def test_findings_stand_beside_the_papers(report):
    lines = finding_lines(report)
    assert any("digits-fvd" in line and line.endswith("| **disagrees** |") for line in lines)
    assert any("all right" in line and "The paper: better; so the first | **agrees** |" in line for line in lines)


def test_samplers_stand_in_a_table_of_their_own(report):
    usual, samplers = case_table(report, "videos"), case_table(report, "videos", samplings=True)
    assert not any("ddim" in line for line in usual) and any("attention" in line for line in usual)
    assert not any("attention" in line for line in samplers)
    assert any(line.startswith("| shift, videos, ddim, 5 steps |") and line.endswith("| 2.00 |") for line in samplers)
    assert all(line.count("|") == samplers[0].count("|") for line in samplers if line)


def test_the_page_is_written_from_all_groups_the_zoo_first(report, tmp_path):
    page = tmp_path / "docs" / "results.md"
    (tmp_path / "docs" / "results").mkdir(parents=True)
    for name in ("zoo", "ablations"):
        own = {**report, "name": name, "title": f"Of {name}"}
        (tmp_path / "docs" / "results" / f"{name}.json").write_text(json.dumps(own))
    write_page(page)
    text = page.read_text()
    assert 0 < text.index("## Of zoo") < text.index("## Of ablations")
    assert text.count("Left out: runs/x: no model yet.") == 2
    assert "**agrees**. Faster" in text and "(pictures/papers_zoo_videos.png)" in text
    once = page.read_bytes()
    write_page(page)
    assert page.read_bytes() == once
