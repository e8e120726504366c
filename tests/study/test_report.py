import math

import pytest

from timeloom.errors import TimeloomError
from timeloom.study import command
from timeloom.study.desk import Desk
from timeloom.study.report import Rules, make_report
from timeloom.study.report_files import html_page, markdown_table, share, table, write_report
from timeloom.study.store import Store

from .conftest import answer_all, ask, build, read_json

RULES = Rules(resamples=200)


def preferring(study, order):
    """Chooses the clip of the system that comes first in `order`; on attention pairs the one that is not destroyed."""
    of_clip = {}
    for pair in study.pairs:
        for clip, system in zip(pair.clips, pair.systems, strict=True):
            of_clip.setdefault(clip, order.index(study.systems[system].name))
        if pair.attention:
            of_clip[pair.clips[1]] = math.inf

    def choose(left, right, question):
        places = [of_clip[clip.removeprefix("media/").removesuffix(".mp4")] for clip in (left, right)]
        return "none" if places[0] == places[1] else "left" if places[0] < places[1] else "right"

    return choose


@pytest.fixture()
def voted(store, study, tokens):
    """Two raters prefer alpha, then beta, then gamma."""
    for token in tokens[:2]:
        answer_all(store, token, preferring(study, ["alpha", "beta", "gamma"]))
    return store


def test_votes_go_to_the_system_whatever_its_side(voted, study):
    report = make_report(study, voted, RULES)
    quality = report["questions"][0]
    for row, ratio in zip(quality["comparisons"], (4.0, None, None), strict=True):
        assert row["votes"] == {"first": 8, "neither": 0, "second": 0} and row["prompts"] == 4
        assert row["majority"] == {"first": 4, "neither": 0, "second": 0}
        assert row["majority_share"]["value"] == row["vote_share"]["value"] == 1
        assert 0 < row["vote_share"]["interval"][0] < row["vote_share"]["interval"][1] == 1
        assert row["parameters_ratio"] == ratio
    assert [(place["system"], place["rank"]) for place in quality["ranking"]] == [
        ("alpha", 1),
        ("beta", 2),
        ("gamma", 3),
    ]
    assert quality["alpha"] is None or quality["alpha"] == 1
    assert 0 < quality["left_share"] < 1
    assert report["votes"] == {
        "given": 52,
        "on_attention_pairs": 4,
        "counted": 48,
        "wanted_per_pair": 2,
        "pairs_with_fewer": 0,
        "pairs_in_all": 24,
    }
    assert report["raters"]["finished"] == ["r0001", "r0002"] and report["raters"]["came"] == 2


def test_ties_by_hand(store, study, tokens):
    """One rater prefers alpha, one beta: every pair of the two is a tie, and half for each."""
    answer_all(store, tokens[0], preferring(study, ["alpha", "beta", "gamma"]))
    answer_all(store, tokens[1], preferring(study, ["beta", "alpha", "gamma"]))
    row = make_report(study, store, RULES)["questions"][1]["comparisons"][0]
    assert row["majority"] == {"first": 0, "neither": 4, "second": 0} and row["majority_share"]["value"] == 0.5
    assert row["votes"] == {"first": 4, "neither": 0, "second": 4}


def test_raters_who_fail_attention_or_hurry_are_left_out_with_the_reason(store, study, tokens):
    right = preferring(study, ["alpha", "beta", "gamma"])
    answer_all(store, tokens[0], right)
    wrong = {"left": "right", "right": "left", "none": "none"}
    answer_all(store, tokens[1], lambda *seen: wrong[right(*seen)])
    report = make_report(study, store, RULES)
    (excluded,) = report["raters"]["excluded"]
    assert excluded["rater"] == "r0002" and excluded["votes"] == 24
    assert excluded["reason"] == "0 of 2 answers on attention pairs right, fewer than 75 %"
    assert report["votes"]["counted"] == 24 and report["votes"]["pairs_with_fewer"] == 24
    everyone = make_report(study, store, Rules(min_attention=0, resamples=200))
    assert not everyone["raters"]["excluded"] and everyone["votes"]["counted"] == 48
    with pytest.raises(TimeloomError, match=r"all 2 raters are left out \(.*median answer after"):
        make_report(study, store, Rules(min_attention=0, min_seconds=60, resamples=200))


def test_no_votes_no_report(store, study):
    with pytest.raises(TimeloomError, match="has no votes yet"):
        make_report(study, store, RULES)


def test_the_table_is_that_of_the_papers(voted, study):
    report = make_report(study, voted, RULES)
    headings, rows = table(report)
    assert headings == ["preferred by majority", "parameters", "quality", "faithfulness"]
    assert [row[:2] for row in rows] == [["alpha vs. beta", "×4.00"], ["alpha vs. gamma", "–"], ["beta vs. gamma", "–"]]
    assert rows[0][2].startswith("100.0 % (")
    text = markdown_table(report)
    assert text.splitlines()[2].startswith("| alpha vs. beta | ×4.00 | 100.0 % (") and "it is a tie" in text
    assert share({"value": 0.725, "interval": [0.641, 0.796]}) == "72.5 % (64.1–79.6)" and share(None) == "–"


def test_names_that_are_scripts_are_text_in_the_report(tmp_path):
    names = ("<script>alert(1)</script>", "$x^", "a|b & `c`")
    study = build(tmp_path / "study", tmp_path / "x", names=("alpha", "beta", "gamma"))
    systems = tuple(system.model_copy(update={"name": name}) for system, name in zip(study.systems, names, strict=True))
    study = study.model_copy(update={"systems": systems, "title": "<img src=x onerror=alert(2)>"})
    with Store(tmp_path / "study", study) as store:
        for _, token, _ in ask(store, Desk.links)[:2]:
            answer_all(store, token, preferring(study, list(names)))
        report = make_report(study, store, RULES)
    page = html_page(report)
    assert "<script" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "data:image/svg+xml;base64," in page
    assert "a\\|b" in markdown_table(report)


def test_the_same_votes_give_the_same_report(voted, study, tmp_path):
    for name in ("one", "two"):
        write_report(tmp_path / name, make_report(study, voted, RULES))
    for file in ("report.json", "table.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_command(voted, study, folder, tmp_path, capsys):
    assert command.main(["report", str(folder), "--resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert "alpha vs. beta" in said and "report.html" in said and "1. alpha" in said
    assert command.main(["report", str(folder), "--resamples", "100", "--output", str(tmp_path / "r"), "--json"]) == 0
    assert capsys.readouterr().out.strip().startswith("{")
    assert read_json(tmp_path / "r" / "report.json")["votes"]["counted"] == 48
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"report.html", "report.json", "table.md"}
