"""`report.html`: one page without anything outside it, for the people who will ask how a number came about."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timeloom.data.clip import Frames
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.evaluate.compare import cell
from timeloom.evaluate.measuring import read_rule
from timeloom.evaluate.prompt_sets import drawn
from timeloom.evaluate.protocol import Protocol, Published
from timeloom.evaluate.video_sets import VideoSet

REPORT = "report.html"
SAMPLES = 8
SAMPLE_SIDE = 160  # pixels of the longer side
SAMPLE_FPS = 8.0  # of samples whose protocol takes the files' own frames
SHOWN = 50  # of what is missing
MARKS = {
    "text": "in the paper's own words",
    "cited": "quoted by later papers",
    "memory": "an unverified recollection, a hint and no target",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; } tr.ours { font-weight: 600; }
small, figcaption { color: #777; } mark { background: #fd05; color: inherit; padding: 0 .2rem; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { height: 9rem; border-radius: 4px; } svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; background: #8881; padding: .8rem; font-size: 12px; }
"""


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    protocol: Protocol,
    fake: VideoSet,
    real: VideoSet | None,
    pairs: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        folder: of the result.
        result: what result.json says.
        protocol: with what papers published by it.
        fake: generated videos, some of which are shown, chosen by the seed and by nothing else.
        real: videos to show beside them.
        pairs: {generated: the real one of the same prompt}, where that is known.
    """
    title = f"{result['name']} by {protocol.name}"
    parts = [
        f"<h1>{_text(title)}</h1><p>{_text(protocol.summary)}</p>",
        numbers_table(result, protocol.published),
        _departures(result),
        curves(result["results"]),
        "<h2>Samples</h2><p><small>Chosen at random by the protocol's seed, none is picked. Left generated, right real."
        "</small></p>",
        f'<div class="samples">{"".join(_samples(protocol, fake, real, pairs))}</div>',
        _missing("Generated videos", result["generated"]),
        _missing("Real videos", result["real"]) if result["real"] else "",
        "<h2>What the numbers rest on</h2>" + _json(result),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{"".join(parts)}</html>\n'
    )
    replace_file(folder / REPORT, page.encode())


def _text(value: object) -> str:
    return html.escape(str(value))


def numbers_table(result: Mapping[str, Any], published: Sequence[Published]) -> str:
    """What was measured, and what papers report below it."""
    results = result["results"]
    heads = "".join(f"<th>{_text(one['metric'])} {'↓' if one['better'] == 'lower' else '↑'}</th>" for one in results)
    ours = "".join(f"<td>{_text(cell(one))}</td>" for one in results)
    counts = "".join(
        f"<td><small>N = {one['count']}{_against(one)}{_lacking(one['missing'])}</small></td>" for one in results
    )
    rows = [f'<tr class="ours"><td>{_text(result["name"])}</td>{ours}</tr><tr><td></td>{counts}</tr>']
    for one in published:
        values = [f"{one.values[each['metric']]:g}" if each["metric"] in one.values else "" for each in results]
        cells = "".join(f"<td>{value}</td>" for value in values)
        rows.append(f"<tr><td>{_text(one.model)} <small>[{one.mark}]</small></td>{cells}</tr>")
    used = dict.fromkeys(one.mark for one in published)
    legend = "; ".join(f"[{mark}] {MARKS[mark]}" for mark in used)
    note = f"<p><small>95 % intervals. {_text(legend)}{'.' if legend else ''}</small></p>"
    return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>{note}"


def _against(one: Mapping[str, Any]) -> str:
    return f" against {one['reference_count']}" if one["reference_count"] else ""


def _lacking(missing: int) -> str:
    return f", <mark>{missing} missing</mark>" if missing else ""


def _departures(result: Mapping[str, Any]) -> str:
    lines = "".join(f"<li><mark>{_text(line)}</mark></li>" for line in result["departures"])
    return f"<p>Not as the protocol says:</p><ul>{lines}</ul>" if lines else ""


def curves(results: Sequence[Mapping[str, Any]]) -> str:
    """Distances against the number of videos, as one drawing; nothing where there are none."""
    lines = [one for one in results if one["details"].get("infinite")]
    if not lines:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(lines), 3.2), layout="constrained")
    for place, one in enumerate(lines):
        limit, axes = one["details"]["infinite"], figure.add_subplot(1, len(lines), place + 1)
        parts = np.arange(1, len(limit["distances"]) + 1)
        axes.plot(one["count"] / parts, limit["distances"], "o-", color="#3b76d6", label="mean of equal parts")
        axes.axhline(limit["value"], color="#d65f3b", linestyle="--", label="infinitely many")
        axes.set(title=one["metric"], xlabel="generated videos", ylabel="distance", xscale="log")
        axes.legend(fontsize=8)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = drawing.getvalue()
    return f"<h2>Distance against N</h2><div>{svg[svg.index('<svg') :]}</div>"


def _samples(protocol: Protocol, fake: VideoSet, real: VideoSet | None, pairs: Mapping[str, str]) -> list[str]:
    names = sorted(fake.files)
    chosen = drawn(names, names, SAMPLES, protocol.seed)
    others = sorted(real.files) if real is not None else []
    spare = drawn(others, others, SAMPLES, protocol.seed)
    figures = []
    for place, name in enumerate(chosen):
        images = [_image(fake, name, protocol, False)]
        partner = pairs.get(name) or (spare[place % len(spare)] if spare else None)
        if real is not None and partner in real.files:
            images.append(_image(real, partner, protocol, True))
        told = fake.texts.get(name, name)
        figures.append(f"<figure>{''.join(images)}<figcaption>{_text(told)}</figcaption></figure>")
    return figures


def _image(videos: VideoSet, name: str, protocol: Protocol, is_real: bool) -> str:
    try:
        frames = read_rule(protocol.clip, protocol.seed, is_real)(videos.files[name])
    except TimeloomError as error:
        return f"<small>{_text(error)}</small>"
    content = base64.b64encode(_moving(frames, protocol.clip.fps or SAMPLE_FPS)).decode()
    return f'<img alt="{_text(name)}" title="{_text(name)}" src="data:image/webp;base64,{content}"> '


def _moving(frames: Frames, fps: float) -> bytes:
    """A small animated WebP."""
    scale = min(1.0, SAMPLE_SIDE / max(frames.shape[1:3]))
    size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
    images = [Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.LANCZOS) for frame in frames]
    target = io.BytesIO()
    images[0].save(
        target, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, quality=80
    )
    return target.getvalue()


def _missing(what: str, part: Mapping[str, Any]) -> str:
    lines = [f"<li>{_text(name)}: {_text(why)}</li>" for name, why in list(part["missing"].items())[:SHOWN]]
    more = len(part["missing"]) - len(lines)
    lines += [f"<li>and {more} more, see result.json</li>"] if more > 0 else []
    left_out = f" {part['left_out']} files of the folder are left out." if part["left_out"] else ""
    said = f"<h2>{what}</h2><p>{part['count']} of {part['asked']} are measured.{left_out}</p>"
    return said + (f"<ul>{''.join(lines)}</ul>" if lines else "")


def _json(result: Mapping[str, Any]) -> str:
    rest = {
        "protocol": result["protocol"],
        "protocol_sha256": result["protocol_sha256"],
        "networks": {one["metric"]: one["features"] for one in result["results"]},
        "generated": result["generated"]["settings"],
        "prompts": result["prompts"],
        "versions": result["versions"],
    }
    return f"<pre>{_text(json.dumps(rest, indent=2, ensure_ascii=False))}</pre>"
