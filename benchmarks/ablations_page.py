"""What `ablations.py` found, as a page: tables, how sure they are, whether they agree with the paper, and pictures.

Nothing here is written by hand: a finding of the paper stands beside the difference that was measured, and two
intervals decide between "agrees", "disagrees" and "undecided".
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from ablation_studies import Section, Study
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


def compare(study: Study, judged: dict[str, Results]) -> list[dict[str, Any]]:
    """Every comparison of the page, in all metrics, ready for JSON."""
    found = []
    for comparison in (comparison for section in study.sections for comparison in section.comparisons):
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
        heading = f"{comparison.better.rpartition(',')[0]} − {comparison.worse.rpartition(',')[0]}"
        lines.append(_row([heading, *(difference_cell(found[metric]) for metric in metrics)]))
        if comparison.finding:
            parts = ", ".join(f"{names[metric]} {found[metric]['verdict']}" for metric in metrics[1:])
            said = f"{comparison.finding}: {names['all']} at once, this {VERDICTS[found['all']['verdict']]}"
            sentences.append(f"{said}; apart: {parts}.")
    real = (f"{100 * first['judge'][metric]['all']['value']:.1f}" for metric in metrics)
    lines.append(_row(["the judge, on real ones", *real]))
    return [*lines, "", *(line for sentence in sentences for line in (sentence, ""))]


def cost_lines(report: dict[str, Any], cheap: str, dear: str) -> list[str]:
    """Parameters, seconds and held-out loss of two arms, each against the paper's direction."""
    first, second = report["steps"][cheap], report["steps"][dear]
    lines = []
    if first["parameters"] != second["parameters"]:
        fewer = "agrees" if first["parameters"] < second["parameters"] else "disagrees"
        lines += [
            f"Fewer parameters in the U-Net: {first['parameters']:,} with {cheap}, {second['parameters']:,} with "
            f"{dear}: this {VERDICTS[fewer]}.",
            "",
        ]
    ratios = [theirs / ours for ours, theirs in zip(first["step_s"], second["step_s"], strict=True)]
    low, high = student(ratios)
    losses = {arm: [run["held_out_loss"] for run in report["training"][arm]] for arm in (cheap, dear)}
    gains = [theirs - ours for ours, theirs in zip(losses[cheap], losses[dear], strict=True)]
    gain = student(gains)
    return [
        *lines,
        f"A faster denoising step: {1e3 * fmean(first['step_s']):.1f} ms with {cheap}, "
        f"{1e3 * fmean(second['step_s']):.1f} ms with {dear}, {fmean(ratios):.3f} times as long "
        f"({low:.3f} to {high:.3f} over {len(ratios)} rounds in turn): this {VERDICTS[verdict((low - 1, high - 1))]}.",
        "",
        "Held-out loss at the end of training, which the paper does not give: "
        f"{fmean(losses[cheap]):.4f} with {cheap}, {fmean(losses[dear]):.4f} with {dear}; "
        f"{dear} − {cheap} is {fmean(gains):+.4f} ({gain[0]:+.4f} to {gain[1]:+.4f} over seeds).",
        "",
    ]


def budget_lines(study: Study, report: dict[str, Any]) -> list[str]:
    """What the models were given, read off the recipes that were run."""
    options, recipe = report["options"], report["training"][study.arms[0].name][0]["recipe"]
    data, schedule, optimizer = recipe["data"], recipe["schedule"], recipe["optimizer"]
    video = next(iter(report["judged"].values()))[0]["protocol"]
    start = report["image_model"]["name"] or f"`digits/image`, trained here on {options['images']:,} images"
    final = optimizer["final_learning_rate"]
    rate = f"{optimizer['learning_rate']:g}" + (f" down to {final:g}" if final is not None else "")
    images = recipe["loss"]["image_share"]
    return [
        f"- Start: one image model for all ({start}; SHA-256 {report['image_model']['sha256'][:12]}).",
        f"- Training, the same for all but for the mechanism: {options['clips']:,} clips of "
        f"{data['num_frames']} frames in batches of {schedule['batch_size']}, learning rate {rate}, "
        f"{recipe['precision']}, seeds {', '.join(map(str, options['seeds']))}.",
        *(
            ["- Where Swap-CA is trained, its network has learned from half of the clips with plain addition before."]
            if study.phases > 1
            else []
        ),
        f"- Share of the clips that were trained on as single images: {images:g}. The paper trains on clips alone.",
        f"- Judging: the protocol *digits* ([evaluate.md](evaluate.md)), the same {options['prompts']} prompts and "
        f"seeds of generation for all; {video['sampler']}, {video['num_inference_steps']} steps, guidance "
        f"{video['guidance_scale']:g}, one sample each. For images the prompts that spin are left out: one frame may "
        "show the digit at any angle.",
    ]


def write_page(study: Study, report: dict[str, Any], page: Path) -> None:
    """Write the page, whole or not at all."""
    where, count = report["machine"], len(report["options"]["seeds"])
    lines = [
        f"# {study.title}",
        "",
        f"Made by `{report['command']}` on {where['processor']}, {where['threads']} threads, {where['device']}, at "
        f"{report['version']}. The command writes this page anew; do not edit it.",
        "",
        *budget_lines(study, report),
        "",
        f"Shares of the prompts that are right, in percent: the mean of {count} training runs (95 % interval over "
        "these runs, Student's t; 95 % interval over prompts, Wilson's for shares and Student's for differences). "
        "Differences are taken prompt by prompt, in percentage points. A finding *agrees* or *disagrees* "
        "where both intervals lie on one side of zero, else it is *undecided*; nothing is corrected for the number of "
        "looks. What a small network on moving digits does is no measurement of the paper's.",
        "",
    ]
    for section in study.sections:
        lines += section_lines(section, report["judged"], report["comparisons"])
        lines += cost_lines(report, *section.faster) if section.faster else []
    lines += ["## Pictures", "", f"Of the first training run (seed {report['options']['seeds'][0]}).", ""]
    for kind in kinds(study):
        lines += [f"![{kind}](pictures/{picture(study, kind)})", ""]
    replace_file(page, "\n".join(lines).encode())


def kinds(study: Study) -> list[str]:
    """Videos, images: what is judged."""
    return list(dict.fromkeys(case.kind for case in study.cases))


def picture(study: Study, kind: str) -> str:
    """The file of a study's picture."""
    return f"{study.name.replace('ablations', 'ablation')}_{kind}.png"


def draw_pictures(study: Study, folders: dict[str, Path], pictures: Path) -> None:
    """The first prompts of the judged `folders` ({case: folder}): a row a prompt, a column a case."""
    for kind in kinds(study):
        rows = ON_VIDEO_SHEET if kind == "videos" else ON_IMAGE_SHEET
        own = {case.removesuffix(f", {kind}"): folder for case, folder in folders.items() if case.endswith(kind)}
        clips, captions = [], []
        for name in sorted(path.name for path in (next(iter(own.values())) / "clips").glob("*.npz"))[:rows]:
            for column, (case, folder) in enumerate(own.items()):
                with np.load(folder / "clips" / name, allow_pickle=False) as stored:
                    clips.append(stored["frames"])
                    captions.append(case if column else f"{case}: {stored['prompt']}")
        path = pictures / picture(study, kind)
        scale = 2 if kind == "images" else 1
        write_contact_sheet(path, clips, captions, columns=len(own), frames_per_clip=FRAMES_OF_A_CLIP, scale=scale)
