"""`timeloom upscale`: a video or a picture, made larger.

timeloom upscale in.mp4 out.mp4
timeloom upscale photo.jpg photo.png --model runs/clips/upscaler/model --precision bf16
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from timeloom.device import choose_device, choose_dtype, keep_memory
from timeloom.errors import TimeloomError, unknown_name
from timeloom.options import parse, require_at_least

SUFFIXES = (".mp4", ".png", ".webp")


@dataclass(frozen=True)
class Options:
    """Make a video or a picture larger, frame by frame, in constant memory; time and sound stay as they are."""

    source: Annotated[Path, tyro.conf.Positional]
    """A video or a picture."""
    output: Annotated[Path, tyro.conf.Positional]
    """.mp4 for a video; .png or .webp for a picture."""
    model: str = "digits-upscaler"
    """A model of the zoo, a model folder, or a file of RCAN weights (.safetensors, .pt) under their authors' names."""
    scale: Literal[2, 3, 4] | None = None
    """How many times larger the model must make it: another one is refused. Default: whatever the model does."""
    tile: int = 128
    """Pixels of the source's side that are put together at once; fewer need less memory, and change no pixel."""
    self_ensemble: bool = False
    """Give the mean over each frame's eight turned and mirrored copies: a little nearer, in eight times the time."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the network computes in. bf16 is up to twice as fast where the processor has it."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    sound: bool = True
    """Leave the sound out."""
    overwrite: bool = False
    """Replace the output where it exists."""
    json: bool = False
    """Print the result as JSON: size in pixels, frames, seconds."""
    quiet: bool = False
    """No progress bar."""


def main(args: list[str]) -> int:
    """Run `timeloom upscale`."""
    options = parse(Options, args, prog="timeloom upscale")
    require_at_least(options, tile=1)
    _check_files(options)
    from timeloom.upscaler import Upscaler, require_scale

    device = choose_device(options.device)
    keep_memory(device)
    dtype = choose_dtype(options.precision, device)
    upscaler = Upscaler.from_pretrained(options.model, device, dtype, options.tile, options.self_ensemble)
    require_scale(upscaler.network, options.scale, options.model)
    started = time.perf_counter()
    try:
        result = _run(options, upscaler)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise TimeloomError(
                f"Not enough memory for frames as large as those of {options.source}. "
                "Try --precision bf16, which takes half, or a smaller source."
            ) from error
        raise
    result = {"file": str(options.output), "model": options.model, "scale": upscaler.scale, **result}
    result["seconds"] = round(time.perf_counter() - started, 3)
    if "left out" in result.get("sound", ""):
        print(f"{options.source}: sound {result['sound']}.", file=sys.stderr)
    print(json.dumps(result) if options.json else options.output)
    return 0


def _check_files(options: Options) -> None:
    """What can be refused before torch is imported."""
    from timeloom.data.write import check_output

    source, output = options.source, options.output
    if source.is_dir():
        raise TimeloomError(f"{source}: is a folder; give one video or picture.")
    if not source.is_file():
        raise TimeloomError(f"{source}: there is no such file.")
    if output.suffix.lower() not in SUFFIXES:
        raise unknown_name(f"suffix of {output}:", output.suffix, SUFFIXES)
    if output.exists() and os.path.samefile(source, output):
        raise TimeloomError(f"{output} is the source itself; give the result another name.")
    check_output(output, options.overwrite)


def _run(options: Options, upscaler: Any) -> dict[str, Any]:
    if options.output.suffix.lower() != ".mp4":
        from timeloom.upscale.image import upscale_image

        height, width = upscale_image(options.source, options.output, upscaler)
        return {"width": width, "height": height, "frames": 1}
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from timeloom.data import probe_video
    from timeloom.upscale.stream import upscale_video

    info = probe_video(options.source)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=options.quiet) as progress:
        task = progress.add_task("frames", total=info.num_frames)
        done = upscale_video(
            options.source, options.output, upscaler, options.sound, lambda count: progress.advance(task, count)
        )
    return {"width": done.width, "height": done.height, "frames": done.frames, "fps": info.fps, "sound": done.sound}
