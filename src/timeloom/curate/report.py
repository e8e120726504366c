"""`report.html`: what came out, to look at. One file without scripts that shows itself anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

from timeloom.curate.pipeline import Result
from timeloom.curate.stages import Job, Record
from timeloom.curate.statistics import PAPER_DURATIONS, PAPER_WORDS, Cost, Statistics
from timeloom.errors import TimeloomError

THUMBNAIL_PX, THUMBNAIL_QUALITY = 84, 72
SHOWN_SCENES = 24
"""Thumbnails of one source at most."""
SHOWN_BARS = 20


def make_report(job: Job, result: Result, title: str) -> str:
    """The page as HTML."""
    statistics = result.statistics
    style = (resources.files("timeloom.curate") / "report.css").read_text("utf-8")
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style>",
            f"<h1>{escape(title)}</h1><p>Curated by Timeloom from {escape(str(job.root))}</p>",
            _numbers(statistics),
            "<h2>Clips that were kept</h2>",
            _key("these clips", "HD-VG-130M (VideoFactory, Figure 2)"),
            '<div class="charts">',
            _beside_paper("Duration", statistics.durations, PAPER_DURATIONS),
            _beside_paper("Words of a caption", statistics.words, PAPER_WORDS),
            _bars("Category, clips", statistics.labels),
            _bars("Captions come from", statistics.caption_origins),
            "</div><h2>What was left out</h2>",
            f"<p>{statistics.clips - statistics.kept:,} of {statistics.clips:,} clips, some for several reasons.",
            f" {statistics.failed:,} of {statistics.expected:,} sources failed (ledger.parquet says which).",
            _not_sampled(result),
            '</p><div class="charts">',
            _bars("Clips, by reason", statistics.reasons, "gone"),
            _bars("Sources, by reason", statistics.failures, "gone"),
            "</div><h2>What it took</h2>",
            _costs(job, result.cost, statistics),
            f"<h2>Sources</h2><p>{len(result.shown):,} of {statistics.expected:,}, evenly chosen. Red marks are cuts; ",
            "a clip that was left out is pale.</p>",
            *_strips(job, result),
            "</html>\n",
        ]
    )


def _numbers(statistics: Statistics) -> str:
    facts = {
        f"{statistics.expected:,}": "sources expected",
        f"{statistics.done:,} + {statistics.failed:,}": "done + failed",
        f"{statistics.source_hours:,.2f} h": "of video",
        f"{statistics.clips:,}": "clips found",
        f"{statistics.kept:,}": "clips kept",
        f"{statistics.kept_hours:,.2f} h": "kept",
    }
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in facts.items())
    return f'<div class="numbers">{cells}</div>'


def _key(ours: str, theirs: str) -> str:
    colours = (("--ours", ours), ("--paper", theirs))
    return '<p class="key">' + "".join(f'<i style="background:var({c})"></i>{escape(t)}' for c, t in colours) + "</p>"


def _beside_paper(title: str, counts: Mapping[str, int], paper: Mapping[str, float]) -> str:
    total = sum(counts.values())
    ours = {name: 100 * counts.get(name, 0) / total if total else 0.0 for name in paper}
    most = max(*ours.values(), *paper.values())
    rows = [
        _row(
            name,
            _bar(ours[name] / most) + _bar(paper[name] / most, "paper"),
            f"{ours[name]:.1f} / {paper[name]:.1f} %",
        )
        for name in paper
    ]
    return f"<div><b>{escape(title)}</b><table>{''.join(rows)}</table></div>"


def _bar(share: float, kind: str = "") -> str:
    return f'<div class="bar {kind}" style="width:{100 * share:.1f}%"></div>'


def _row(name: str, middle: str, value: str) -> str:
    return f'<tr><td class="name">{escape(name)}</td><td>{middle}</td><td class="value">{escape(value)}</td></tr>'


def _bars(title: str, counts: Mapping[str, int], kind: str = "") -> str:
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = ranked[0][1]
    rows = [_row(name, _bar(count / most, kind), f"{count:,}") for name, count in ranked[:SHOWN_BARS]]
    if len(ranked) > SHOWN_BARS:
        rest = sum(count for _, count in ranked[SHOWN_BARS:])
        rows.append(_row(f"{len(ranked) - SHOWN_BARS} more", "", f"{rest:,}"))
    return f"<div><b>{escape(title)}</b><table>{''.join(rows)}</table></div>"


def _not_sampled(result: Result) -> str:
    if not result.sample.chosen:
        return ""
    found = result.sample.found.total()
    return f" {result.sample.left_out:,} of {found:,} sources were not in the sample."


def _costs(job: Job, cost: Cost, statistics: Statistics) -> str:
    estimate = cost.estimate(statistics, job.recipe.prices)
    if not estimate:
        return "<p>Nothing was scanned.</p>"
    rate, money = 3600 * cost.scanned_hours / cost.scan_cpu_s, estimate["currency"]
    lines = {
        "Scan": f"{cost.scan_cpu_s:,.1f} CPU seconds for {cost.scanned_hours:,.2f} h of video: a core "
        f"scans {rate:,.1f} times as fast as it plays",
        f"{estimate['hours']:,} h of such video": f"{estimate['core_hours']:,.0f} core-hours, "
        f"{estimate['core_hours_cost']:,.0f} {money}",
    }
    if "caption_hours" in estimate:
        cores = estimate["cores_that_one_captioner_keeps_up_with"]
        lines |= {
            "Captions": f"{estimate['caption_s_per_clip']:.3f} s a clip, {cost.captioned:,} clips",
            f"{estimate['clips_to_caption']:,} clips of these hours": f"{estimate['caption_hours']:,.0f} hours of the "
            f"captioning device, {estimate['caption_hours_cost']:,.0f} {money}",
            "Captions are the limit": f"with more than {cores:,.1f} scanning cores for each captioning device",
        }
    rows = "".join(f'<tr><td class="name">{escape(a)}</td><td>{escape(b)}</td></tr>' for a, b in lines.items())
    return f"<table>{rows}</table>"


def _strips(job: Job, result: Result) -> Iterator[str]:
    """A line of time and a strip of central frames for each source that is shown."""
    for record, line, rows in result.shown:
        head = f"<b>{escape(record.candidate.path)}</b>"
        facts = [record.candidate.label, f"{line['width']}×{line['height']}", f"{line['fps']:.3g} fps"]
        facts += [f"{line['duration_s']:.1f} s", f"{line['kept']} of {line['clips']} clips kept"]
        facts += [f"failed: {record.why}"] if record.why else []
        facts += line["warnings"]
        parts = "".join(
            f'<span class="{"kept" if row["kept"] else ""}" style="flex:{row["duration_s"]:.3f}"></span>'
            for row in rows
        )
        yield (
            f'<div class="source">{head} <span class="soft">{escape(" · ".join(filter(None, facts)))}</span>'
            f'<div class="time">{parts}</div><div class="strip">{"".join(_figures(job, record, rows))}</div></div>'
        )


def _figures(job: Job, record: Record, rows: list[dict[str, Any]]) -> Iterator[str]:
    try:
        with job.store.reading(record.source_id) as kept:
            pictures = [_thumbnail(kept.picture(number)) for number in range(min(len(rows), SHOWN_SCENES))]
    except TimeloomError as error:
        yield f"<p>{escape(str(error))}</p>"
        return
    for row, picture in zip(rows, pictures, strict=False):
        told = escape("; ".join(row["reasons"]) or row["caption"], quote=True)
        yield (
            f'<figure class="{"" if row["kept"] else "gone"}" title="{told}"><img alt="{told}" '
            f'src="data:image/jpeg;base64,{picture}"><figcaption>{row["start_s"]:.2f} s</figcaption></figure>'
        )
    if len(rows) > SHOWN_SCENES:
        yield f"<p>… and {len(rows) - SHOWN_SCENES:,} more</p>"


def _thumbnail(picture: bytes) -> str:
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    width = max(1, round(image.width * THUMBNAIL_PX / image.height))
    target = io.BytesIO()
    image.resize((min(width, 4 * THUMBNAIL_PX), THUMBNAIL_PX)).save(target, "JPEG", quality=THUMBNAIL_QUALITY)
    return base64.b64encode(target.getvalue()).decode("ascii")
