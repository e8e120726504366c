"""`timeloom evaluate`: measure a model by a protocol.

timeloom evaluate --protocol digits --model digits-shift
timeloom evaluate --protocol digits --model PATH --num-prompts 64 --output out/
timeloom evaluate --protocol digits --model digits-shift --frames 1
timeloom evaluate papers
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from timeloom import options as command_options
from timeloom.device import choose_device
from timeloom.errors import TimeloomError

if TYPE_CHECKING:
    from rich.console import Console

    from timeloom.data.clip import Frames
    from timeloom.evaluate.digits_protocol import ClipStore, Prompt, Protocol
    from timeloom.evaluate.intervals import Share
    from timeloom.evaluate.judge import Judge, Verdict
    from timeloom.generate.pipeline import TextToVideoPipeline

COMMANDS = {"papers": "timeloom.evaluate.papers.command"}
"""Words after `evaluate` that do something else, and the modules whose `main(args)` does it."""

MIN_JUDGE_ACCURACY = 0.98
CLIPS_ON_A_SHEET = 16
MAX_SEED = 2**62
WEIGHING_FILES = (".safetensors", ".json", ".txt")
"""Of a model folder: what decides the clips it makes."""


@dataclass(frozen=True)
class Options:
    """Measure a model by a protocol: generate for held-out prompts, and judge from the pixels what the clips show.
    `timeloom evaluate papers` compares what the papers compare."""

    model: str = "digits-shift"
    """A model of the zoo, a model folder in Stable Diffusion format, or a Hub id in the local cache."""
    adapter: Path | None = None
    """A change to add to the U-Net: an adapter's .safetensors file, or its folder."""
    adapter_scale: float = 1.0
    """How much of the adapter; 0 leaves the weights as they are."""
    without_temporal: bool = False
    """Take the temporal mechanism out, so that no frame sees another: the paper's ablation."""
    protocol: Literal["digits"] = "digits"
    """digits: digit, colour, background and motion of clips of the built-in data set."""
    num_prompts: int = 512
    """Prompts, and clips; a longer run in the same folder goes on from a shorter one."""
    seed: int = 0
    """Which prompts; clip i is made with seed + i."""
    frames: int | None = None
    """Frames of a clip; 1 judges images: digit, colour and background. Default: the model's."""
    colours: tuple[str, ...] = ()
    """Prompts about digits in these colours alone; all when left out."""
    backgrounds: tuple[str, ...] = ()
    """Prompts about these backgrounds alone; all when left out."""
    steps: int | None = None
    """Denoising steps. Default: the model's."""
    sampler: str | None = None
    """ddpm, ddim, dpm-solver++ or unipc. Default: the model's."""
    guidance: float | None = None
    """Strength of classifier-free guidance; 1 switches it off. Default: the model's."""
    batch_size: int = 16
    """Clips denoised at once. More are faster on an accelerator, and change the last bits of rounding."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the networks compute in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    output: Path | None = None
    """Folder of the clips and the result; run again with the same one to go on. Default: evaluations/digits-MODEL, with
    the adapter's name, the number of frames and the missing mechanism behind it where they are asked for."""
    overwrite: bool = False
    """Throw away what the folder holds of an earlier evaluation."""
    json: bool = False
    """Print the result as JSON in place of the table."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate` and return its exit code."""
    if args and args[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[args[0]]).main(args[1:]))
    options = command_options.parse(Options, args, prog="timeloom evaluate")
    _check_numbers(options)
    from rich.console import Console

    from timeloom.evaluate.digits_protocol import ClipStore, for_images, make_prompts
    from timeloom.evaluate.judge import Judge

    pipe, protocol = _load(options)
    folder = options.output or Path("evaluations") / _folder_name(options)
    store = ClipStore(folder, protocol, options.overwrite)
    status = Console(stderr=True)
    prompts = make_prompts(options.num_prompts, options.seed, options.colours, options.backgrounds)
    if protocol.num_frames == 1:
        prompts = for_images(prompts)
        left_out = options.num_prompts - len(prompts)
        status.print(f"{left_out} prompts left out: one frame of a spinning digit may show it at any angle.")
    result = evaluate(pipe, prompts, protocol, store, Judge(protocol.fps), options.batch_size, status)
    adapter = {"adapter": str(options.adapter), "adapter_scale": options.adapter_scale} if options.adapter else {}
    without = {"without_temporal": True} if options.without_temporal else {}
    result = {"model": options.model, **adapter, **without, "device": str(pipe.device), **result}
    write_result(folder, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_table(result, Console())
        print(folder / "result.json")
    return 0


def _folder_name(options: Options) -> str:
    words = ["digits", Path(options.model).expanduser().resolve().name]
    words += [options.adapter.stem] if options.adapter else []
    words += [f"frames-{options.frames}"] if options.frames else []
    return "-".join([*words, "without-temporal"] if options.without_temporal else words)


def _check_numbers(options: Options) -> None:
    """What can be refused without the model."""
    command_options.require_at_least(options, num_prompts=1, batch_size=1, steps=1, seed=0, frames=1)
    if options.seed > MAX_SEED:
        raise TimeloomError(f"--seed must be at most 2**62, with room to count up, not {options.seed}.")
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise TimeloomError(f"--guidance must be a number, not {options.guidance}.")
    if not math.isfinite(options.adapter_scale):
        raise TimeloomError(f"--adapter-scale must be a number, not {options.adapter_scale}.")
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise TimeloomError(f"--output {options.output} is a file; the result needs a folder.")


def _load(options: Options) -> tuple[TextToVideoPipeline, Protocol]:
    """The pipeline on its device, and the protocol with the model's defaults filled in."""
    import torch

    from timeloom import __version__
    from timeloom.adapters import find_adapter
    from timeloom.evaluate.digits_protocol import Protocol
    from timeloom.generate import model_folder
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.generate.schedulers import make_scheduler, scheduler_name

    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    pipe = TextToVideoPipeline.from_pretrained(
        options.model, dtype=dtype, adapter=options.adapter, adapter_scale=options.adapter_scale
    ).to(choose_device(options.device))
    weights = hash_model(model_folder.find_model(options.model))
    if options.adapter is not None:
        change = hashlib.sha256(find_adapter(options.adapter).read_bytes()).hexdigest()
        weights = hashlib.sha256(f"{weights} + {options.adapter_scale} x {change}".encode()).hexdigest()
    if options.without_temporal:
        pipe.unet.remove_temporal_mechanism()
        weights = hashlib.sha256(f"{weights} without temporal mechanism".encode()).hexdigest()
    if options.sampler is not None:
        pipe.scheduler = make_scheduler(options.sampler, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.config
    protocol = Protocol(
        num_frames=config.num_frames if options.frames is None else options.frames,
        fps=config.fps,
        height=config.height,
        width=config.width,
        num_inference_steps=config.num_inference_steps if options.steps is None else options.steps,
        guidance_scale=config.guidance_scale if options.guidance is None else options.guidance,
        sampler=scheduler_name(pipe.scheduler),
        precision=options.precision,
        weights_sha256=weights,
        timeloom=__version__,
        torch=str(torch.__version__),
        seed=options.seed,
        colours=options.colours,
        backgrounds=options.backgrounds,
    )
    return pipe, protocol


def hash_model(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's weights, configurations and vocabulary."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in WEIGHING_FILES):
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


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


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write result.json, whole or not at all."""
    from timeloom.data.write import replace_file

    replace_file(folder / "result.json", json.dumps(result, indent=2, ensure_ascii=False).encode())


def print_table(result: dict[str, Any], console: Console) -> None:
    """Shares right with 95 % intervals, a row for each metric, a column for each group of combinations."""
    from rich.table import Table

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
