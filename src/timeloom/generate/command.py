"""`timeloom generate`: prompts to files.

timeloom generate "a red seven moves left" --output seven.mp4 --seed 0
timeloom generate --prompts prompts.txt --output out/ --model PATH
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from timeloom import options as command_options
from timeloom import zoo
from timeloom.device import choose_device, choose_dtype, keep_memory
from timeloom.errors import TimeloomError
from timeloom.generate import outputs, prompts

if TYPE_CHECKING:
    import numpy as np

    from timeloom.generate.pipeline import StepCallback, TextToVideoPipeline
    from timeloom.upscaler import Upscaler

EXIT_INTERRUPTED = 130
CLIPS_ON_A_SHEET = 64


@dataclass(frozen=True)
class Options:
    """Make videos or images from prompts."""

    prompt: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="PROMPT")] = None
    """What the video shows."""
    prompts: Path | None = None
    """A UTF-8 text file with one prompt a line, in place of PROMPT; the clips go into the folder --output."""
    output: str | None = None
    """File (.mp4, .gif, .webp, or .png), or a folder for several clips. Default: a file named after the prompt."""
    model: str = zoo.DEFAULT
    """A model of the zoo, a model folder in Stable Diffusion format, or a Hub id in the local cache."""
    adapter: Path | None = None
    """A change to add to the U-Net: an adapter's .safetensors file, or its folder."""
    adapter_scale: float = 1.0
    """How much of the adapter; 0 leaves the weights as they are."""
    without_temporal: bool = False
    """Take the temporal mechanism out, so that no frame sees another: the paper's ablation."""
    upscale: bool = False
    """Make the frames larger once they are decoded, with --upscaler."""
    upscaler: str = "digits-upscaler"
    """A model of the zoo that makes frames larger, a model folder, or a file of RCAN weights."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    """Seed of the first clip; clip i gets seed + i."""
    num_samples: int = 1
    """Clips of each prompt."""
    frames: int | None = None
    """Frames, 1 ... 1024; 1 makes an image. Default: the model's."""
    height: int | None = None
    """Height in pixels, a multiple of 8. Default: the model's."""
    width: int | None = None
    """Width in pixels, a multiple of 8. Default: the model's."""
    fps: float | None = None
    """Frames per second that the file is played at. Default: what the model was trained at."""
    steps: int | None = None
    """Denoising steps. Default: the model's."""
    guidance: float | None = None
    """Strength of classifier-free guidance; 1 switches it off. Default: the model's."""
    sampler: str | None = None
    """ddpm, ddim, dpm-solver++ or unipc. Default: the model's."""
    format: Literal["mp4", "gif", "webp", "png"] | None = None
    """File type where --output names none. Default: mp4; png with --frames 1."""
    contact_sheet: Path | None = None
    """Also write one picture with the frames of the first 64 clips side by side."""
    batch_size: int = 1
    """Clips denoised at once. More are faster on an accelerator, and change the last bits of rounding."""
    decode_chunk: int = 16
    """Frames decoded at once; fewer need less memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the networks compute in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar."""


@dataclass
class Result:
    """What a run has made so far."""

    made: list[outputs.Job]
    sampling_s: float = 0.0
    interrupted: bool = False


def main(args: list[str]) -> int:
    """Run `timeloom generate` and return its exit code."""
    started = time.perf_counter()
    options = command_options.parse(Options, args, prog="timeloom generate")
    _check_numbers(options)
    plan = _plan(options)
    result = Result([])
    settings: dict[str, Any] = {}
    if plan.jobs:
        pipe = load_pipeline(options)
        upscaler = load_upscaler(pipe, options)
        settings = clip_settings(pipe, options)
        outputs.require_rate(plan.jobs[0].path, settings["fps"])
        _run(pipe, upscaler, options, plan.jobs, settings, result)
    _report(options, plan, result, settings, time.perf_counter() - started)
    return EXIT_INTERRUPTED if result.interrupted else 0


def _check_numbers(options: Options) -> None:
    """What can be refused without the model. The pipeline checks frames and sizes too, but only after it is loaded."""
    command_options.require_at_least(
        options, num_samples=1, batch_size=1, decode_chunk=1, frames=1, height=1, width=1, steps=1, seed=0
    )
    if options.seed > outputs.MAX_SEED - 10**9:
        raise TimeloomError(f"--seed must be below 2**63, with room to count up, not {options.seed}.")
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise TimeloomError(f"--fps must be above 0 and at most 1000, not {options.fps:g}.")
    for name in ("guidance", "adapter_scale"):
        number = getattr(options, name)
        if number is not None and not math.isfinite(number):
            raise TimeloomError(f"--{name.replace('_', '-')} must be a number, not {number}.")


def _plan(options: Options) -> outputs.Plan:
    """Which clips go where. All that can be wrong with prompts and files is found here, before torch is imported."""
    suffix = f".{options.format}" if options.format else ".png" if options.frames == 1 else ".mp4"
    if options.contact_sheet is not None:
        outputs.require_free(options.contact_sheet, options.overwrite, (".png", ".webp"))
    if (options.prompt is None) == (options.prompts is None):
        raise TimeloomError("Give one prompt, or --prompts with a file of them.")
    if options.prompts is not None:
        if options.output is None:
            raise TimeloomError("--prompts needs --output, the folder that the clips go into.")
        found = prompts.read_prompts(options.prompts)
        if found.blank_lines:
            print(f"{options.prompts}: {found.blank_lines} blank line(s) left out.", file=sys.stderr)
        texts = found.prompts
    else:
        texts = [options.prompt or ""]
        prompts.require_prompt(texts[0])
        output = options.output or prompts.slug(texts[0]) + suffix
        if options.num_samples == 1 and not output.endswith(("/", "\\")) and not Path(output).is_dir():
            return outputs.plan_file(texts[0], options.seed, Path(output), options.overwrite)
    folder = Path(options.output or ".")
    return outputs.plan_folder(texts, options.num_samples, options.seed, folder, suffix, options.overwrite)


def load_pipeline(options: Options) -> TextToVideoPipeline:
    """The pipeline on its device, with the sampler that was asked for."""
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.generate.schedulers import make_scheduler

    device = choose_device(options.device)
    keep_memory(device)
    dtype = choose_dtype(options.precision, device)
    pipe = TextToVideoPipeline.from_pretrained(
        options.model, dtype=dtype, adapter=options.adapter, adapter_scale=options.adapter_scale
    ).to(device)
    if options.without_temporal:
        pipe.unet.remove_temporal_mechanism()
    if options.sampler is not None:
        pipe.scheduler = make_scheduler(options.sampler, pipe.scheduler.config)
    return pipe


def load_upscaler(pipe: TextToVideoPipeline, options: Options) -> Upscaler | None:
    """What makes the frames larger, on the pipeline's device and in its numbers."""
    if not options.upscale:
        return None
    from timeloom.upscaler import Upscaler

    return Upscaler.from_pretrained(options.upscaler, pipe.device, pipe.dtype)


def clip_settings(pipe: TextToVideoPipeline, options: Options) -> dict[str, Any]:
    """All that decides what the clips look like, the model's defaults filled in: metadata of every file."""
    from timeloom import __version__
    from timeloom.generate.schedulers import scheduler_name

    def chosen(option: Any, default: str) -> Any:
        return pipe.config[default] if option is None else option

    return {
        "model": options.model,
        **({"adapter": str(options.adapter), "adapter_scale": options.adapter_scale} if options.adapter else {}),
        **({"without_temporal": True} if options.without_temporal else {}),
        **({"upscaler": options.upscaler} if options.upscale else {}),
        "negative_prompt": options.negative_prompt,
        "num_frames": chosen(options.frames, "num_frames"),
        "height": chosen(options.height, "height"),
        "width": chosen(options.width, "width"),
        "fps": float(chosen(options.fps, "fps")),
        "sampler": scheduler_name(pipe.scheduler),
        "num_inference_steps": chosen(options.steps, "num_inference_steps"),
        "guidance_scale": chosen(options.guidance, "guidance_scale"),
        "precision": options.precision,
        "timeloom": __version__,
    }


def _run(
    pipe: TextToVideoPipeline,
    upscaler: Upscaler | None,
    options: Options,
    jobs: list[outputs.Job],
    settings: dict[str, Any],
    result: Result,
) -> None:
    """Make the clips and write each as soon as it is there, so that what is finished stays, whatever happens."""
    from rich.console import Console
    from rich.progress import Progress

    several = len(jobs) > options.batch_size
    pipe.set_progress_bar_config(disable=options.quiet or several, desc="denoising", unit="step")
    sheet: list[tuple[np.ndarray, str]] = []
    try:
        with Progress(console=Console(stderr=True), disable=options.quiet or not several) as progress:
            clips_done = progress.add_task("clips", total=len(jobs))
            for start in range(0, len(jobs), options.batch_size):
                batch = jobs[start : start + options.batch_size]
                began = time.perf_counter()
                clips = sample(pipe, upscaler, options, batch, settings)
                result.sampling_s += time.perf_counter() - began
                for job, clip in zip(batch, clips, strict=True):
                    write_clip(job, clip, settings, options.overwrite)
                    result.made.append(job)
                    progress.advance(clips_done)
                    if options.contact_sheet is not None and len(sheet) < CLIPS_ON_A_SHEET:
                        sheet.append((clip, job.prompt))
    except KeyboardInterrupt:
        result.interrupted = True
    if sheet and options.contact_sheet is not None:
        from timeloom.data import write_contact_sheet

        clips, captions = zip(*sheet, strict=True)
        write_contact_sheet(options.contact_sheet, clips, captions, overwrite=options.overwrite)


def sample(
    pipe: TextToVideoPipeline,
    upscaler: Upscaler | None,
    options: Options,
    batch: list[outputs.Job],
    settings: dict[str, Any],
    on_step: StepCallback | None = None,
) -> np.ndarray:
    """The clips of one batch, uint8 (B, F, H, W, 3); `on_step` is the pipeline's `callback_on_step_end`."""
    try:
        output = pipe(
            [job.prompt for job in batch],
            negative_prompt=options.negative_prompt,
            seeds=[job.seed for job in batch],
            decode_chunk_size=options.decode_chunk,
            callback_on_step_end=on_step,
            upscaler=upscaler,
            **{
                name: settings[name]
                for name in ("num_frames", "height", "width", "num_inference_steps", "guidance_scale")
            },
        )
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            size = f"{len(batch)} x {settings['num_frames']} frames of {settings['width']}x{settings['height']} pixels"
            raise TimeloomError(
                f"Not enough memory for {size}. Try fewer --frames, a smaller --height and --width, or --batch-size 1."
            ) from error
        raise
    return output.frames


def write_clip(job: outputs.Job, clip: np.ndarray, settings: dict[str, Any], overwrite: bool = False) -> None:
    """Write a clip to its job's file, with all that it was made from."""
    from timeloom.data import write_video

    metadata = {"prompt": job.prompt, "seed": str(job.seed), **{name: str(value) for name, value in settings.items()}}
    write_video(job.path, clip, fps=settings["fps"], metadata=metadata, overwrite=overwrite)


def _report(options: Options, plan: outputs.Plan, result: Result, settings: dict[str, Any], total_s: float) -> None:
    if options.json:
        sheet = options.contact_sheet if result.made else None
        content = {
            "files": [{"file": str(job.path), "prompt": job.prompt, "seed": job.seed} for job in result.made],
            "kept": plan.kept,
            "missing": len(plan.jobs) - len(result.made),
            "interrupted": result.interrupted,
            "contact_sheet": str(sheet) if sheet else None,
            "sampling_s": round(result.sampling_s, 3),
            "total_s": round(total_s, 3),
            **settings,
        }
        print(json.dumps(content, ensure_ascii=False))
        return
    for job in result.made:
        print(job.path)
    if options.contact_sheet is not None and result.made:
        print(options.contact_sheet)
    if plan.kept:
        print(f"{plan.kept} clip(s) were there already and are kept; --overwrite makes them again.", file=sys.stderr)
    if result.interrupted:
        missing = len(plan.jobs) - len(result.made)
        print(f"Stopped: {len(result.made)} clip(s) finished and kept, {missing} not made.", file=sys.stderr)
