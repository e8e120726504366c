"""`timeloom evaluate --protocol digits --model M`: clips for held-out prompts, judged from their pixels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom.evaluate import protocols

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from timeloom.data.clip import Frames
    from timeloom.evaluate.command import Options
    from timeloom.evaluate.digits_protocol import ClipStore, Prompt, Protocol
    from timeloom.evaluate.intervals import Share
    from timeloom.evaluate.judge import Judge, Verdict
    from timeloom.generate.pipeline import TextToVideoPipeline

MIN_JUDGE_ACCURACY = 0.98
CLIPS_ON_A_SHEET = 16


def run(options: Options, folder: Path) -> int:
    """Judge `options.model`; the clips and the result go into `folder`. Returns the exit code."""
    from rich.console import Console

    from timeloom.evaluate.digits_protocol import ClipStore, for_images, make_prompts
    from timeloom.evaluate.judge import Judge
    from timeloom.evaluate.protocol import load_protocol
    from timeloom.evaluate.result_folder import RESULT, write_result

    pipe, protocol = load(options)
    store = ClipStore(folder, protocol, options.overwrite)
    status = Console(stderr=True)
    num_prompts = options.num_prompts or load_protocol(protocols.find("digits")).generated or 0
    prompts = make_prompts(num_prompts, protocol.seed, options.colours, options.backgrounds)
    if protocol.num_frames == 1:
        prompts = for_images(prompts)
        left_out = num_prompts - len(prompts)
        status.print(f"{left_out} prompts left out: one frame of a spinning digit may show it at any angle.")
    result = evaluate(pipe, prompts, protocol, store, Judge(protocol.fps), options.batch_size, status)
    result["results"] = distances(prompts, protocol, store, pipe.device)
    adapter = {"adapter": str(options.adapter), "adapter_scale": options.adapter_scale} if options.adapter else {}
    without = {"without_temporal": True} if options.without_temporal else {}
    result = {"model": options.model, **adapter, **without, "device": str(pipe.device), **result}
    write_result(folder, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_table(result, Console())
        print(folder / RESULT)
    return 0


def load(options: Options) -> tuple[TextToVideoPipeline, Protocol]:
    """The pipeline on its device, and the protocol with the model's defaults filled in."""
    from timeloom.evaluate.digits_protocol import Protocol
    from timeloom.evaluate.model import load_model

    pipe, settings = load_model(options)
    protocol = Protocol(**settings, seed=options.seed or 0, colours=options.colours, backgrounds=options.backgrounds)
    return pipe, protocol


def evaluate(
    pipe: Any,
    prompts: list[Prompt],
    protocol: Protocol,
    store: ClipStore,
    judge: Judge,
    batch_size: int,
    status: Console,
) -> dict[str, Any]:
    """Measure the judge on real clips, then generate, judge and draw contact sheets: what result.json says."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from timeloom.evaluate import digits_protocol as digits

    own = digits.measure_judge(judge, prompts, protocol)
    status.print(f"The judge itself, on {len(prompts)} real test clips: {_accuracies(own)}")
    if min(own[name]["all"].value for name in prompts[0].attributes) < MIN_JUDGE_ACCURACY:
        status.print(f"[yellow]Below {MIN_JUDGE_ACCURACY:.0%} on an attribute: take the result with care.[/yellow]")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=status) as progress:
        task = progress.add_task("clips", total=len(prompts))
        digits.generate(pipe, prompts, protocol, store, batch_size, lambda count: progress.advance(task, count))
    clips, generation_s = digits.load_clips(prompts, store)
    began = time.perf_counter()
    verdicts = judge(clips)
    judging_s = time.perf_counter() - began
    draw_sheets(store.clips.parent, clips, prompts, verdicts)
    return {
        "protocol": protocol.to_json(),
        "protocol_sha256": protocol.sha256,
        "num_prompts": len(prompts),
        "judge": digits.shares_to_json(own),
        "model_right": digits.shares_to_json(digits.count_right(prompts, verdicts)),
        "marks": digits.marks(prompts, verdicts),
        "failures": digits.find_failures(prompts, verdicts),
        "seconds": {"generation": round(generation_s, 3), "judging": round(judging_s, 3)},
    }


def distances(
    prompts: list[Prompt], protocol: Protocol, store: ClipStore, device: torch.device
) -> list[dict[str, Any]]:
    """What digits-features says of the clips, beside real ones; nothing for a single clip."""
    from timeloom.evaluate import digits_metrics
    from timeloom.evaluate.digits_protocol import draw_real_clips, load_clips
    from timeloom.model_files import quiet_libraries

    if len(prompts) < 2:
        return []
    with quiet_libraries():
        looker = digits_metrics.Looker(device)
    looked = looker.look(load_clips(prompts, store)[0], prompts)
    real = looker.look(draw_real_clips(prompts, protocol), prompts)
    found = digits_metrics.measure(looked, real)
    told = {network.name: network.protocol for network in (looker.video, looker.image, looker.text_video)}
    return [{**result.to_json(), "features": told[result.protocol["network"]]} for result in found.values()]


def _accuracies(shares: dict[str, dict[str, Share]]) -> str:
    return ", ".join(f"{name} {groups['all'].value:.1%}" for name, groups in shares.items())


def draw_sheets(folder: Path, clips: Frames, prompts: list[Prompt], verdicts: list[Verdict]) -> None:
    """Write clips.png, the first clips, and failures.png, the first that are not right, with what was seen."""
    from timeloom.data import write_contact_sheet
    from timeloom.evaluate.digits_protocol import find_failures

    first = range(min(CLIPS_ON_A_SHEET, len(clips)))
    failures = find_failures(prompts, verdicts)
    notes = {
        failure["index"]: ", ".join(f"{name} {was['seen'] or 'unclear'}" for name, was in failure["wrong"].items())
        for failure in failures
    }
    places = [place for place, prompt in enumerate(prompts) if prompt.index in notes][:CLIPS_ON_A_SHEET]
    for name, chosen in (("clips.png", first), ("failures.png", places)):
        if not chosen:
            (folder / name).unlink(missing_ok=True)
            continue
        captions = [
            prompts[place].text + (f" | seen: {notes[prompts[place].index]}" if prompts[place].index in notes else "")
            for place in chosen
        ]
        title = "Generated clips" if name == "clips.png" else f"Not right: {len(failures)} of {len(prompts)}"
        write_contact_sheet(folder / name, [clips[place] for place in chosen], captions, columns=2, title=title)


def print_table(result: dict[str, Any], console: Console) -> None:
    """Shares right with 95 % intervals, a row for each metric, a column for each group of combinations; distances."""
    from rich.table import Table

    from timeloom.evaluate.compare import cell

    right = result["model_right"]
    table = Table(title=f"{result['model']}: share right of {result['num_prompts']} prompts (95 % interval)")
    table.add_column("")
    for group, heading in (("all", "all"), ("seen", "seen in training"), ("unseen", "never trained on")):
        table.add_column(f"{heading}, n = {right['all'][group]['n']}", justify="right")
    table.add_column("judge on real clips", justify="right")
    names = {"all": "all four" if "motion" in right else "all three", "steady": "digit steady"}
    for metric, groups in right.items():
        cells = [
            f"{share['value']:.1%} ({share['interval'][0]:.1%} – {share['interval'][1]:.1%})"
            for share in groups.values()
        ]
        table.add_row(names.get(metric, metric), *cells, f"{result['judge'][metric]['all']['value']:.1%}")
    console.print(table)
    for one in result.get("results", []):
        console.print(f"{one['metric']}: {cell(one)}, {one['better']} is better")
