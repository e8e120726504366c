"""`timeloom evaluate`: measure a model, or videos made elsewhere, by a protocol.

timeloom evaluate --protocol digits --model digits-shift
timeloom evaluate --protocol msrvtt-one --model PATH --annotations test_videodatainfo.json --output out/
timeloom evaluate --protocol stylegan-v --real A/ --fake B/ --json
timeloom evaluate papers
timeloom evaluate compare out-a/ out-b/
timeloom evaluate export vbench out/videos vbench/
"""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from timeloom import options as command_options
from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.evaluate import protocols

COMMANDS = {
    "papers": "timeloom.evaluate.papers.command",
    "compare": "timeloom.evaluate.compare",
    "export": "timeloom.evaluate.export",
}
"""Words after `evaluate` that do something else, and the modules whose `main(args)` does it."""

MAX_SEED = 2**62


@dataclass(frozen=True)
class Options:
    """Measure a model, or a folder of videos, by a protocol. A word in place of the options does something else:
    `papers` compares what the papers compare, `compare` puts results of one protocol into one table, `export` lays
    videos out for VBench and EvalCrafter."""

    protocol: str = "digits"
    """digits, msrvtt-all, msrvtt-one, stylegan-v, ucf101-finetuned, ucf101-zeroshot, videogpt, webvid-val, or a YAML
    file of your own."""
    model: str | None = None
    """Generate with it: a model of the zoo, a model folder in Stable Diffusion format, or a Hub id in the local cache.
    Default for digits: digits-shift."""
    fake: Path | None = None
    """In place of --model, a folder of videos that were made elsewhere."""
    real: Path | None = None
    """The folder of real videos."""
    annotations: Path | None = None
    """What the prompts and the split come from, as published: MSR-VTT's JSON, WebVid's CSV, the folder of UCF-101's
    lists. It is never shipped."""
    weights: Path | None = None
    """The folder of the weights that metrics look through. Default: what TIMELOOM_WEIGHTS names."""
    adapter: Path | None = None
    """A change to add to the U-Net: an adapter's .safetensors file, or its folder."""
    adapter_scale: float = 1.0
    """How much of the adapter; 0 leaves the weights as they are."""
    without_temporal: bool = False
    """Take the temporal mechanism out, so that no frame sees another: the paper's ablation."""
    num_prompts: int | None = None
    """Prompts, and clips; fewer than the protocol's make a trial. A longer run in the same folder goes on from a
    shorter one. Default: the protocol's."""
    seed: int | None = None
    """Which prompts of digits; clip i is made with seed + i. Default: the protocol's."""
    frames: int | None = None
    """Frames of a generated clip; with digits, 1 judges images: digit, colour and background. Default: the model's."""
    colours: tuple[str, ...] = ()
    """For digits: prompts about digits in these colours alone; all when left out."""
    backgrounds: tuple[str, ...] = ()
    """For digits: prompts about these backgrounds alone; all when left out."""
    steps: int | None = None
    """Denoising steps. Default: the model's."""
    sampler: str | None = None
    """ddpm, ddim, dpm-solver++ or unipc. Default: the model's."""
    guidance: float | None = None
    """Strength of classifier-free guidance; 1 switches it off. Default: the model's."""
    batch_size: int = 16
    """Clips denoised at once. More are faster on an accelerator, and change the last bits of rounding."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the model computes in; networks of metrics always compute in fp32."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    workers: int | None = None
    """Processes that decode videos; 0 decodes between the batches. Default: one less than the cores, at most 16."""
    shard: str | None = None
    """I/N: do part I of N (0/4 ... 3/4) of generating and of features, then stop; the same command without it measures.
    torchrun's processes share by themselves."""
    ray: int = 0
    """Share the work among so many Ray tasks, one accelerator each; the folder must be seen by all of them."""
    output: Path | None = None
    """Folder of the clips and the result; run again with the same one to go on. Default: evaluations/PROTOCOL-NAME, for
    a model with the adapter's name, the number of frames and the missing mechanism where they are asked for."""
    overwrite: bool = False
    """Throw away what the folder holds of an earlier evaluation."""
    json: bool = False
    """Print the result as JSON in place of the table."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate` and return its exit code."""
    if args and args[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[args[0]]).main(args[1:]))
    options = command_options.parse(Options, args, prog="timeloom evaluate")
    check_options(options)
    if options.protocol == "digits" and options.fake is None:
        from timeloom.evaluate import digits_command

        options = replace(options, model=options.model or zoo.DEFAULT)
        return digits_command.run(options, output_folder(options))
    path = protocols.find(options.protocol)
    check_videos(options)
    from timeloom.evaluate import run

    return run.run(options, path, output_folder(options))


def output_folder(options: Options) -> Path:
    """Where the result goes."""
    if options.output is not None:
        return options.output
    words = [Path(options.protocol).stem, Path(options.model or options.fake or "").expanduser().resolve().name]
    words += [options.adapter.stem] if options.adapter else []
    words += [f"frames-{options.frames}"] if options.frames else []
    return Path("evaluations") / "-".join([*words, "without-temporal"] if options.without_temporal else words)


def check_options(options: Options) -> None:
    """Refuse what can be refused without the model. Raises TimeloomError."""
    command_options.require_at_least(options, num_prompts=1, batch_size=1, steps=1, seed=0, frames=1, workers=0, ray=0)
    if options.seed is not None and options.seed > MAX_SEED:
        raise TimeloomError(f"--seed must be at most 2**62, with room to count up, not {options.seed}.")
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise TimeloomError(f"--guidance must be a number, not {options.guidance}.")
    if not math.isfinite(options.adapter_scale):
        raise TimeloomError(f"--adapter-scale must be a number, not {options.adapter_scale}.")
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise TimeloomError(f"--output {options.output} is a file; the result needs a folder.")
    if options.protocol != "digits" and (options.colours or options.backgrounds):
        raise TimeloomError("--colours and --backgrounds are for prompts of digits.")
    shard_of(options)


def check_videos(options: Options) -> None:
    """Where the videos come from. Raises TimeloomError unless it is one of two ways, and the folders are there."""
    if (options.model is None) == (options.fake is None):
        raise TimeloomError("Give --model to generate videos, or --fake with a folder of them.")
    for name in ("fake", "real", "weights"):
        folder = getattr(options, name)
        if folder is not None and not folder.expanduser().is_dir():
            raise TimeloomError(f"--{name} {folder}: there is no such folder.")


def shard_of(options: Options) -> tuple[int, int] | None:
    """Which part of how many --shard asks for. Raises TimeloomError where it is no part."""
    if options.shard is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", options.shard)
    if found is None or int(found[1]) >= int(found[2]):
        raise TimeloomError(f"--shard is I/N with I from 0 to N - 1, such as 0/4, not {options.shard!r}.")
    if options.ray:
        raise TimeloomError("--shard and --ray both share the work; give one of them.")
    return int(found[1]), int(found[2])
