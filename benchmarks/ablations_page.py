"""What `ablations.py` found, as a page: tables, how sure they are, whether they agree with the paper, and pictures.

Nothing here is written by hand: a finding of the paper stands beside the difference that was measured, and two
intervals decide between "agrees", "disagrees" and "undecided".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeloom.data import write_contact_sheet
from timeloom.data.write import replace_file
from timeloom.evaluate.intervals import student, wilson

Interval = tuple[float, float]
Results = list[dict[str, Any]]
"""What `timeloom evaluate` said of one case, a result for each seed."""

VERDICTS = {
    "agrees": "**agrees with the paper**",
    "disagrees": "**disagrees with the paper**",
    "undecided": "is **undecided**",
}
ON_VIDEO_SHEET, ON_IMAGE_SHEET, FRAMES_OF_A_CLIP = 4, 6, 6


@dataclass(frozen=True)
class Comparison:
    """Two cases, the first of which the paper finds better."""

    better: str
    worse: str
    finding: str | None
    """The paper's, as the beginning of a sentence; None where it gives no direction."""


@dataclass(frozen=True)
class Section:
    """A table of the page."""

    title: str
    paper: str
    """What the paper says."""
    cases: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


SHIFT_OR_ATTENTION = Section(
    "Shift or attention",
    "The paper: Latent-Shift does better than attention over time (Latent-VDM) in most cases, with fewer parameters, "
    "faster.",
    ("shift, videos", "attention, videos"),
    (Comparison("shift, videos", "attention, videos", "The shift makes the better videos"),),
)
SECTIONS = (
    SHIFT_OR_ATTENTION,
    Section(
        "Images from the video model",
        "The paper: after training for video, Latent-Shift still makes reasonable images; with attention, "
        "images collapse. Beside the image model it claims no direction, so that only the difference stands here.",
        ("image model, images", "shift, images", "attention, images"),
        (
            Comparison("shift, images", "image model, images", None),
            Comparison("shift, images", "attention, images", "The shift makes the better images"),
        ),
    ),
    Section(
        "Videos without the shift",
        "The paper: the shift has no weights, but generation cannot do without it.",
        ("shift, videos", "shift taken out, videos"),
        (Comparison("shift, videos", "shift taken out, videos", "Videos need the shift"),),
    ),
    Section(
        "Images without the mechanism",
        "The paper: the shift is needed for images too, since its zeros say that the neighbours are missing; "
        "taking attention out does not bring the images back.",
        ("shift, images", "shift taken out, images", "attention, images", "attention taken out, images"),
        (
            Comparison("shift, images", "shift taken out, images", "Images need the shift"),
            Comparison("shift, images", "attention taken out, images", "Attention taken out leaves the worse images"),
        ),
    ),
)


# Numbers


def right(results: Results, metric: str) -> NDArray[np.float64]:
    """(seeds, prompts): 1 where a clip is right."""
    return np.array([[float(mark) for mark in result["marks"][metric]] for result in results])


def verdict(*intervals: Interval) -> str:
    """Whether a difference lies on the paper's side of zero: only what every interval says is decided."""
    if all(low > 0 for low, _ in intervals):
        return "agrees"
    return "disagrees" if all(high < 0 for _, high in intervals) else "undecided"


def difference(better: Results, worse: Results, metric: str) -> dict[str, Any]:
    """By how much the first is right more often: prompt by prompt, and seed by seed where both have several."""
    each = right(better, metric) - right(worse, metric)
    over_seeds, over_prompts = student(each.mean(axis=1).tolist()), student(each.mean(axis=0).tolist())
    return {
        "mean": float(each.mean()),
        "over_seeds": over_seeds,
        "over_prompts": over_prompts,
        "verdict": verdict(over_seeds, over_prompts),
    }


def compare(judged: dict[str, Results]) -> list[dict[str, Any]]:
    """Every comparison of the page, in all metrics, ready for JSON."""
    found = []
    for comparison in (comparison for section in SECTIONS for comparison in section.comparisons):
        better, worse = judged[comparison.better], judged[comparison.worse]
        metrics = {metric: difference(better, worse, metric) for metric in better[0]["marks"]}
        found.append({"of": comparison.better, "against": comparison.worse, "metrics": metrics})
    return found


# Words


def _percent(interval: Interval, sign: str = "") -> str:
    return " to ".join(f"{100 * end:{sign}.0f}" for end in interval)


def share_cell(results: Results, metric: str) -> str:
    """The mean share in percent with both intervals."""
    marks = right(results, metric)
    shares, mean = marks.mean(axis=1).tolist(), float(marks.mean())
    over_prompts = _percent(wilson(mean * marks.shape[1], marks.shape[1]))
    if len(shares) == 1:
        return f"{100 * mean:.1f} (one run; {over_prompts})"
    low, high = student(shares)
    return f"{100 * mean:.1f} ({_percent((max(low, 0.0), min(high, 1.0)))}; {over_prompts})"


def difference_cell(found: dict[str, Any]) -> str:
    """The mean difference in percentage points with both intervals."""
    over_seeds, over_prompts = (
        _percent((max(low, -1.0), min(high, 1.0)), "+") for low, high in (found["over_seeds"], found["over_prompts"])
    )
    return f"{100 * found['mean']:+.1f} ({over_seeds}; {over_prompts})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def metric_name(metric: str, metrics: Any) -> str:
    names = {"all": "all four" if "motion" in metrics else "all three", "steady": "digit steady"}
    return names.get(metric, metric)


def section_lines(section: Section, judged: dict[str, Results], comparisons: list[dict[str, Any]]) -> list[str]:
    """Title, the paper's words, the table, and a line for each finding of the paper."""
    first = judged[section.cases[0]][0]
    metrics = sorted(first["marks"], key=lambda metric: metric != "all")  # all at once comes first
    names = {metric: metric_name(metric, metrics) for metric in metrics}
    lines = [f"## {section.title}", "", section.paper, "", _row([f"n = {first['num_prompts']}", *names.values()])]
    lines.append(_row(["---"] * (len(metrics) + 1)))
    for case in section.cases:
        lines.append(_row([case, *(share_cell(judged[case], metric) for metric in metrics)]))
    sentences = []
    for comparison in section.comparisons:
        found = next(
            one["metrics"]
            for one in comparisons
            if (one["of"], one["against"]) == (comparison.better, comparison.worse)
        )
        heading = f"{comparison.better.partition(',')[0]} − {comparison.worse.partition(',')[0]}"
        lines.append(_row([heading, *(difference_cell(found[metric]) for metric in metrics)]))
        if comparison.finding:
            parts = ", ".join(f"{names[metric]} {found[metric]['verdict']}" for metric in metrics[1:])
            said = f"{comparison.finding}: {names['all']} at once, this {VERDICTS[found['all']['verdict']]}"
            sentences.append(f"{said}; apart: {parts}.")
    real = (f"{100 * first['judge'][metric]['all']['value']:.1f}" for metric in metrics)
    lines.append(_row(["the judge, on real ones", *real]))
    return [*lines, "", *(line for sentence in sentences for line in (sentence, ""))]


def cost_lines(report: dict[str, Any]) -> list[str]:
    """Parameters, seconds and held-out loss of shift and attention, each against the paper's direction."""
    shift, attention = report["steps"]["shift"], report["steps"]["attention"]
    fewer = "agrees" if shift["parameters"] < attention["parameters"] else "disagrees"
    ratios = [theirs / ours for ours, theirs in zip(shift["step_s"], attention["step_s"], strict=True)]
    low, high = student(ratios)
    losses = {
        mechanism: [run["held_out_loss"] for run in report["training"][mechanism]]
        for mechanism in ("shift", "attention")
    }
    gains = [theirs - ours for ours, theirs in zip(losses["shift"], losses["attention"], strict=True)]
    gain = student(gains)
    return [
        f"Fewer parameters in the U-Net: {shift['parameters']:,} with the shift, {attention['parameters']:,} with "
        f"attention: this {VERDICTS[fewer]}.",
        "",
        f"A faster denoising step: {1e3 * fmean(shift['step_s']):.1f} ms with the shift, "
        f"{1e3 * fmean(attention['step_s']):.1f} ms with attention, {fmean(ratios):.3f} times as long "
        f"({low:.3f} to {high:.3f} over {len(ratios)} rounds in turn): this {VERDICTS[verdict((low - 1, high - 1))]}.",
        "",
        "Held-out loss at the end of training, which the paper does not give: "
        f"{fmean(losses['shift']):.4f} with the shift, {fmean(losses['attention']):.4f} with attention; "
        f"attention − shift is {fmean(gains):+.4f} ({gain[0]:+.4f} to {gain[1]:+.4f} over seeds).",
        "",
    ]


def budget_lines(report: dict[str, Any]) -> list[str]:
    """What the models were given, read off the recipes that were run."""
    options, recipe = report["options"], report["training"]["shift"][0]["recipe"]
    data, schedule, optimizer = recipe["data"], recipe["schedule"], recipe["optimizer"]
    video = next(iter(report["judged"].values()))[0]["protocol"]
    start = report["image_model"]["name"] or f"`digits/image`, trained here on {options['images']:,} images"
    final = optimizer["final_learning_rate"]
    rate = f"{optimizer['learning_rate']:g}" + (f" down to {final:g}" if final is not None else "")
    images = recipe["loss"]["image_share"]
    return [
        f"- Start: one image model for all ({start}; SHA-256 {report['image_model']['sha256'][:12]}).",
        f"- Training, the same for shift and attention but for the mechanism: {schedule['total_samples']:,} clips of "
        f"{data['num_frames']} frames in batches of {schedule['batch_size']}, learning rate {rate}, "
        f"{recipe['precision']}, seeds {', '.join(map(str, options['seeds']))}.",
        f"- Share of the clips that were trained on as single images: {images:g}. The paper trains on clips alone.",
        f"- Judging: the protocol *digits* ([evaluate.md](evaluate.md)), the same {options['prompts']} prompts and "
        f"seeds of generation for all; {video['sampler']}, {video['num_inference_steps']} steps, guidance "
        f"{video['guidance_scale']:g}, one sample each. For images the prompts that spin are left out: one frame may "
        "show the digit at any angle.",
    ]


def write_page(report: dict[str, Any], page: Path) -> None:
    """Write the page, whole or not at all."""
    where, count = report["machine"], len(report["options"]["seeds"])
    lines = [
        "# Results: the ablations of Latent-Shift, at laptop size",
        "",
        f"Made by `{report['command']}` on {where['processor']}, {where['threads']} threads, {where['device']}, at "
        f"{report['version']}. The command writes this page anew; do not edit it.",
        "",
        *budget_lines(report),
        "",
        f"Shares of the prompts that are right, in percent: the mean of {count} training runs (95 % interval over "
        "these runs, Student's t; 95 % interval over prompts, Wilson's for shares and Student's for differences). "
        "Differences are taken prompt by prompt, in percentage points. A finding *agrees* or *disagrees* "
        "where both intervals lie on one side of zero, else it is *undecided*; nothing is corrected for the number of "
        "looks. What a small network on moving digits does is no measurement of the paper's.",
        "",
    ]
    for section in SECTIONS:
        lines += section_lines(section, report["judged"], report["comparisons"])
        lines += cost_lines(report) if section is SHIFT_OR_ATTENTION else []
    lines += ["## Pictures", "", f"Of the first training run (seed {report['options']['seeds'][0]}).", ""]
    lines += ["![videos](pictures/ablation_videos.png)", "", "![images](pictures/ablation_images.png)", ""]
    replace_file(page, "\n".join(lines).encode())


def draw_pictures(folders: dict[str, Path], pictures: Path) -> None:
    """The first prompts of the judged `folders` ({case: folder}): a row a prompt, a column a case."""
    for kind, rows in (("videos", ON_VIDEO_SHEET), ("images", ON_IMAGE_SHEET)):
        own = {case.removesuffix(f", {kind}"): folder for case, folder in folders.items() if case.endswith(kind)}
        clips, captions = [], []
        for name in sorted(path.name for path in (next(iter(own.values())) / "clips").glob("*.npz"))[:rows]:
            for column, (case, folder) in enumerate(own.items()):
                with np.load(folder / "clips" / name, allow_pickle=False) as stored:
                    clips.append(stored["frames"])
                    captions.append(case if column else f"{case}: {stored['prompt']}")
        path = pictures / f"ablation_{kind}.png"
        scale = 2 if kind == "images" else 1
        write_contact_sheet(path, clips, captions, columns=len(own), frames_per_clip=FRAMES_OF_A_CLIP, scale=scale)
