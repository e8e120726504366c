"""report.html with its plots, report.json, and the table in the papers' layout."""

from __future__ import annotations

import base64
import io
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom.data.write import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

FIRST_COLOUR, TIE_COLOUR, SECOND_COLOUR = "#0b57d0", "#c3c8d1", "#b3541e"


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, table.md and report.html, each whole or not at all."""
    replace_file(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False).encode())
    replace_file(folder / "table.md", markdown_table(report).encode())
    replace_file(folder / "report.html", html_page(report).encode())


def table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as both papers print them: who against whom, the ratio of parameters, a share a question.

    Latent-Shift's table has one row and two questions; VideoFactory's has a row for each other system and three.
    """
    questions = report["questions"]
    with_ratio = any(row["parameters_ratio"] for row in questions[0]["comparisons"])
    headings = ["preferred by majority", *(["parameters"] if with_ratio else []), *(one["name"] for one in questions)]
    rows = []
    for place, comparison in enumerate(questions[0]["comparisons"]):
        first, second = comparison["systems"]
        ratio = comparison["parameters_ratio"]
        cells = [f"{first} vs. {second}"]
        cells += [f"×{ratio:.2f}" if ratio else "–"] if with_ratio else []
        rows.append([*cells, *(share(one["comparisons"][place].get("majority_share")) for one in questions)])
    return headings, rows


def share(found: dict[str, Any] | None) -> str:
    """A share and its interval: 72.5 % (64.1–79.6)."""
    if found is None:
        return "–"
    interval = found["interval"]
    return f"{found['value']:.1%}".replace("%", " %") + (
        f" ({interval[0] * 100:.1f}–{interval[1] * 100:.1f})" if interval else ""
    )


def markdown_table(report: dict[str, Any]) -> str:
    """The table in Markdown, and under it what its numbers are."""
    headings, rows = table(report)

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

    lines = [line(headings), line(["---"] * len(headings)), *map(line, rows)]
    rules = report["rules"]
    return "\n".join([*lines, "", f"{rules['majority']} Intervals: {rules['intervals']}", ""])


def print_table(report: dict[str, Any], console: Console) -> None:
    """The table, who was left out, and the ranking, on the terminal."""
    from rich.table import Table
    from rich.text import Text

    headings, rows = table(report)
    shown = Table(title=Text(f"Share that prefers the first, of {report['votes']['counted']} votes (95 % interval)"))
    for heading in headings:
        shown.add_column(Text(heading), justify="left" if heading == headings[0] else "right")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    for question in report["questions"]:
        alpha = "undefined" if question["alpha"] is None else f"{question['alpha']:.2f}"
        console.print(Text(f"{question['name']}: agreement (Krippendorff's alpha) {alpha}"))
        for place in question["ranking"] or []:
            between = "" if place["rank_interval"] is None else " (rank {}–{})".format(*place["rank_interval"])
            console.print(Text(f"  {place['rank']}. {place['system']} {place['strength']:+.2f}{between}"))
    for one in report["raters"]["excluded"]:
        console.print(Text(f"left out: {one['rater']}, {one['votes']} votes: {one['reason']}"))
    votes = report["votes"]
    if votes["pairs_with_fewer"]:
        wanted = f"fewer than {votes['wanted_per_pair']} counted votes"
        console.print(
            Text(f"{votes['pairs_with_fewer']} of {votes['pairs_in_all']} pairs and questions have {wanted}.")
        )


def html_page(report: dict[str, Any]) -> str:
    """One file, with its plots inside. Names and prompts are text in it, whatever they are."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("timeloom.study").joinpath("pages/report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = share
    headings, rows = table(report)
    plots = [
        {
            "bars": _picture(plot_shares(question)),
            "ranking": _picture(plot_ranking(question)) if question["ranking"] else None,
        }
        for question in report["questions"]
    ]
    return environment.from_string(template).render(report=report, headings=headings, rows=rows, plots=plots)


def _picture(figure: Figure) -> str:
    """A figure as the address of an SVG picture, its letters drawn."""
    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return "data:image/svg+xml;base64," + base64.b64encode(target.getvalue()).decode()


def plot_shares(question: dict[str, Any]) -> Figure:
    """Bars of first, tie and second by majority, a row a comparison; the point is the share, with its interval."""
    from matplotlib.figure import Figure

    found = [row for row in question["comparisons"] if row["prompts"]]
    figure = Figure(figsize=(8, 0.9 + 0.75 * len(found)))
    axes = figure.add_subplot()
    for place, row in enumerate(found):
        parts = [row["majority"][name] / row["prompts"] for name in ("first", "neither", "second")]
        begin = 0.0
        for part, colour in zip(parts, (FIRST_COLOUR, TIE_COLOUR, SECOND_COLOUR), strict=True):
            axes.barh(place, part, left=begin, height=0.5, color=colour)
            begin += part
        value, interval = row["majority_share"]["value"], row["majority_share"]["interval"]
        if interval:
            axes.plot(interval, [place, place], color="white", linewidth=4.5, solid_capstyle="butt")
            axes.plot(interval, [place, place], color="black", linewidth=2, solid_capstyle="butt")
        axes.plot(value, place, "o", color="black", markeredgecolor="white", markersize=8)
        for x, name, align in ((-0.015, row["systems"][0], "right"), (1.015, row["systems"][1], "left")):
            axes.text(x, place, name, ha=align, va="center", parse_math=False)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(len(found) - 0.4, -0.6), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def plot_ranking(question: dict[str, Any]) -> Figure:
    """Strengths from best to worst, with their intervals."""
    from matplotlib.figure import Figure

    places = question["ranking"]
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(places)))
    axes = figure.add_subplot()
    for row, place in enumerate(places):
        if place["interval"]:
            axes.plot(place["interval"], [row, row], color=FIRST_COLOUR, linewidth=2)
        axes.plot(place["strength"], row, "o", color=FIRST_COLOUR, markersize=8)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_yticks(range(len(places)))
    for label, place in zip(axes.set_yticklabels([""] * len(places)), places, strict=True):
        label.set_parse_math(False)
        label.set_text(place["system"])
    axes.set_yticklabels([place["system"] for place in places], parse_math=False)
    axes.set_xlabel("strength (log-odds); 0 is the mean")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
