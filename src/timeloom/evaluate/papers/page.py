"""The page of results, written from the numbers of every group that was judged: nothing on it is written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from timeloom.data.write import replace_file
from timeloom.evaluate.intervals import student, wilson
from timeloom.evaluate.papers.findings import FID, FVD, LIKENESS, Interval, verdict

Report = dict[str, Any]
"""Of one group; what `numbers` of the command gives."""

NAMES = {"all": "all right", "steady": "digit steady"}
PAPER_STEP_RATIO, PAPER_SIZES = 28.62 / 23.40, "1.53 against 1.58 billion"
ON_VIDEO_SHEET, ON_IMAGE_SHEET, FRAMES_OF_A_CLIP, CASES_ON_A_SHEET = 4, 6, 6, 6

HEAD = """# Results: what the papers compare, on *digits*

Written by `timeloom evaluate papers` from the numbers in [results/](results); do not edit it. What small networks on
moving digits do is no measurement of the papers' own models. The question is whether their findings show here too.

How to read it. Shares of the prompts that are right are in percent, by the judge. `digits-fvd`, `digits-fid` (lower is
better) and `digits-clipsim` (higher is better) are FVD, FID and CLIPSIM on the features of digits-features, and can be
compared with no numbers but those here. A value has its 95 % intervals behind it: (over training runs; over prompts),
or (one run; over prompts). A difference is how much better the first is than the second, prompt by prompt or resample
by resample. A finding of a paper *agrees* or *disagrees* where all intervals lie on one side of zero, else it is
*undecided*; nothing is corrected for the number of looks. From one run of each, nothing follows about other runs.
"""


def write_page(page: Path) -> None:
    """Write the page from the reports beside it, whole or not at all."""
    folder = page.with_suffix("")
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    reports.sort(key=lambda report: (report["name"] != "zoo", report["name"]))
    lines = [HEAD]
    for report in reports:
        lines += group_lines(report)
    replace_file(page, "\n".join(lines).encode())


def group_lines(report: Report) -> list[str]:
    """Everything about one group of models."""
    where, budget = report["machine"], report["budget"]
    lines = [
        f"## {report['title']}",
        "",
        f"`{report['command']}` on {where['processor']}, {where['threads']} threads, {where['device']}, at "
        f"{report['version']}. All made clips for the same {budget['num_prompts']} prompts from the same seeds, one "
        f"sample each: {budget['sampler']}, {budget['steps']} steps, guidance {budget['guidance']:g}.",
        "",
        *model_lines(report),
        "### Videos",
        "",
        *case_table(report, "videos"),
        "### Images",
        "",
        "One frame. Prompts that spin are left out: one frame may show the digit at any angle.",
        "",
        *case_table(report, "images"),
        "### The papers' findings",
        "",
        *finding_lines(report),
        "### Cost",
        "",
        *cost_lines(report),
    ]
    if any(case["sampling"] for case in report["cases"].values()):
        lines += ["### Sampler and steps", "", *case_table(report, "videos", samplings=True)]
    pictures = [f"![{kind}](pictures/papers_{report['name']}_{kind}.png)" for kind in report["pictures"]]
    return [*lines, "### Pictures", "", *(line for picture in pictures for line in (picture, ""))]


def model_lines(report: Report) -> list[str]:
    """A table of the models, and what is known of their training."""
    lines = [_row(["kind", "model", "SHA-256", "clip", "trained on"]), _row(["---"] * 5)]
    for label, models in report["models"].items():
        for model in models:
            size = f"{model['num_frames']} × {model['width']}×{model['height']}"
            lines.append(_row([label, model["name"], model["sha256"][:12], size, _training(model["training"])]))
    left_out = [f"Left out: {line}." for line in report["left_out"]]
    return [*lines, "", *(line for one in left_out for line in (one, ""))]


def _training(training: dict[str, Any] | None) -> str:
    if training is None:
        return "its card tells"
    recipe, loss = training["recipe"], training["held_out_loss"]
    schedule, rate = recipe["schedule"], recipe["optimizer"]["learning_rate"]
    ends = "" if loss is None else f"; held-out loss {loss:.4f}"
    return (
        f"{schedule['total_samples']:,} samples in batches of {schedule['batch_size']}, rate {rate:g}, "
        f"image share {recipe['loss']['image_share']:g}, seed {recipe['seed']}{ends}"
    )


def case_table(report: Report, kind: str, samplings: bool = False) -> list[str]:
    """A row for each case, a column for each metric, and what real clips get."""
    cases = {
        name: case["runs"]
        for name, case in report["cases"].items()
        if case["kind"] == kind and (samplings or not case["sampling"])
    }
    if samplings:
        sampled = [name for name, case in report["cases"].items() if case["sampling"]]
        base = sampled[0].partition(f", {kind}")[0]
        cases = {name: runs for name, runs in cases.items() if name == f"{base}, {kind}" or name in sampled}
    if not cases:
        return ["There is none.", ""]
    first = next(iter(cases.values()))[0]
    shares = sorted(first["marks"], key=lambda metric: metric != "all")  # all at once comes first
    metrics = [FVD, LIKENESS] if kind == "videos" else [FID]
    seconds = ["s a clip"] if samplings else []
    heads = [f"n = {first['num_prompts']}", *(NAMES.get(name, name) for name in shares), *metrics, *seconds]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, runs in cases.items():
        cells = [share_cell(runs, metric) for metric in shares] + [value_cell(runs, metric) for metric in metrics]
        spent = fmean(run["seconds"]["generation"] / run["num_prompts"] for run in runs)
        lines.append(_row([name, *cells, *([f"{spent:.2f}"] if samplings else [])]))
    real = [f"{100 * first['judge'][metric]['all']['value']:.1f}" for metric in shares]
    real += [_number(metric, first["real_metrics"][metric]) for metric in metrics]
    return [*lines, _row(["real clips", *real, *([""] if samplings else [])]), ""]


def share_cell(runs: Sequence[dict[str, Any]], metric: str) -> str:
    """The mean share in percent with both intervals."""
    marks = np.array([[float(mark) for mark in run["marks"][metric]] for run in runs])
    mean = float(marks.mean())
    over_prompts = _percent(wilson(mean * marks.shape[1], marks.shape[1]))
    if len(runs) == 1:
        return f"{100 * mean:.1f} (one run; {over_prompts})"
    low, high = student(marks.mean(axis=1).tolist())
    return f"{100 * mean:.1f} ({_percent((max(low, 0.0), min(high, 1.0)))}; {over_prompts})"


def value_cell(runs: Sequence[dict[str, Any]], metric: str) -> str:
    """The mean of a metric with both intervals."""
    found = [run["metrics"][metric] for run in runs]
    values = [one["value"] for one in found]
    bounds = [one["interval"] for one in found]
    over_prompts = "no interval below 32 prompts"
    if all(bounds):
        low, high = np.mean(bounds, axis=0)
        over_prompts = f"{_number(metric, low)} to {_number(metric, high)}"
    if len(runs) == 1:
        return f"{_number(metric, values[0])} (one run; {over_prompts})"
    low, high = student(values)
    return f"{_number(metric, fmean(values))} ({_number(metric, low)} to {_number(metric, high)}; {over_prompts})"


def finding_lines(report: Report) -> list[str]:
    """A line for each metric of each comparison: the difference, the paper's word, and the verdict."""
    heads = ["first", "second", "metric", "first is better by", "the paper", "here"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for found in report["comparisons"]:
        pair = [found["first"], found["second"]]
        if not found["metrics"]:
            lines.append(_row([*pair, "", found["refused"], "", ""]))
        for metric, one in found["metrics"].items():
            paper, says = one["paper"], one["verdict"]
            if paper is None:
                said = ["", {"undecided": "undecided"}.get(one["better"], f"the {one['better']} is better")]
            else:
                said = [f"{paper['words']}: the {paper['better']}", f"**{says}**" if says != "undecided" else says]
            lines.append(_row([*pair, NAMES.get(metric, metric), difference_cell(metric, one), *said]))
    return [*lines, ""] if report["comparisons"] else ["There are no two models here that the papers compare.", ""]


def difference_cell(metric: str, found: dict[str, Any]) -> str:
    """The mean difference with both intervals; of shares in percentage points."""
    share = metric == "all"

    def words(interval: Interval | None) -> str:
        if interval is None:
            return "unknown"
        low, high = interval
        return _percent((max(low, -1.0), min(high, 1.0)), "+") if share else _signed(metric, low, high)

    runs = "one run" if found["over_runs"] is None else words(found["over_runs"])
    mean = f"{100 * found['mean']:+.1f}" if share else _signed(metric, found["mean"])
    return f"{mean} ({runs}; {words(found['over_prompts'])})"


def cost_lines(report: Report) -> list[str]:
    """Parameters and seconds, against Latent-Shift's direction where shift and attention are there."""
    steps = report["steps"]
    heads = ["", "parameters of the U-Net", "ms a denoising step"]
    lines = [_row(heads), _row(["---"] * 3)]
    for label, one in steps.items():
        milliseconds = [1e3 * second for second in one["step_s"]]
        low, high = student(milliseconds)
        cell = f"{fmean(milliseconds):.1f} ({low:.1f} to {high:.1f} over {len(milliseconds)} rounds in turn)"
        lines.append(_row([label, f"{one['parameters']:,}", cell]))
    lines.append("")
    if "shift" in steps and "attention" in steps:
        shift, attention = steps["shift"], steps["attention"]
        ratios = [theirs / ours for ours, theirs in zip(shift["step_s"], attention["step_s"], strict=True)]
        low, high = student(ratios)
        faster = {"first": "agrees", "second": "disagrees"}.get(verdict((low - 1, high - 1)), "undecided")
        fewer = "agrees" if shift["parameters"] < attention["parameters"] else "disagrees"
        lines += [
            f"Latent-Shift: fewer parameters than with attention ({PAPER_SIZES} in all): **{fewer}**. Faster (with "
            f"attention {PAPER_STEP_RATIO:.2f} times as long a clip): here a step takes {fmean(ratios):.3f} times "
            f"as long ({low:.3f} to {high:.3f}): **{faster}**.",
            "",
        ]
    return lines


def draw_pictures(folders: dict[str, Path], name: str, pictures: Path) -> list[str]:
    """The first prompts of the judged `folders` ({case: folder}): a row a prompt, a column a case. The kinds drawn."""
    from timeloom.data import write_contact_sheet

    drawn = []
    for kind, rows in (("videos", ON_VIDEO_SHEET), ("images", ON_IMAGE_SHEET)):
        own = {case.removesuffix(f", {kind}"): folder for case, folder in folders.items() if case.endswith(f", {kind}")}
        own = dict(list(own.items())[:CASES_ON_A_SHEET])
        files = sorted(path.name for path in (next(iter(own.values())) / "clips").glob("*.npz")) if own else []
        clips, captions = [], []
        for file in files[:rows]:
            for column, (case, folder) in enumerate(own.items()):
                with np.load(folder / "clips" / file, allow_pickle=False) as stored:
                    clips.append(stored["frames"])
                    captions.append(case if column else f"{case}: {stored['prompt']}")
        if clips:
            path = pictures / f"papers_{name}_{kind}.png"
            scale = 2 if kind == "images" else 1
            write_contact_sheet(path, clips, captions, columns=len(own), frames_per_clip=FRAMES_OF_A_CLIP, scale=scale)
            drawn.append(kind)
    return drawn


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(interval: Interval, sign: str = "") -> str:
    return " to ".join(f"{100 * end:{sign}.0f}" for end in interval)


def _number(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == LIKENESS else f"{value:.1f}"


def _signed(metric: str, *ends: float) -> str:
    return " to ".join(("+" if end >= 0 else "−") + _number(metric, abs(end)) for end in ends)
