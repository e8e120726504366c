"""`timeloom data degrade RECIPE`: see what an upscaler learns from, and what each clip went through."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from timeloom.errors import TimeloomError
from timeloom.options import parse, require_at_least

if TYPE_CHECKING:
    from timeloom.upscale.degradation import Blur, Degradation, Stage


@dataclass(frozen=True)
class DegradeOptions:
    """Draw some training clips of an upscaler's recipe as it will see them: made worse and smaller."""

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe's YAML file, or the name of a packaged one such as digits/upscaler."""
    set: list[str] = field(default_factory=list)
    """Changes to the recipe, in YAML: --set data.path=my-clips degradation.h264=1."""
    output: Path = Path("degraded.png")
    """PNG to write: each clip's crop as it was and, below, degraded; pixels as large as the scale."""
    clips: int = 6
    """How many clips to draw: the first training samples."""
    frames_per_clip: int = 4
    """How many frames of each clip to show."""
    overwrite: bool = False
    """Replace an existing output."""
    json: bool = False
    """Print every parameter of each clip's degradation as JSON."""


def main(args: list[str]) -> int:
    """Run `timeloom data degrade`."""
    options = parse(DegradeOptions, args[1:], prog="timeloom data degrade")
    require_at_least(options, clips=1, frames_per_clip=1)
    import torch

    from timeloom import recipes
    from timeloom.data import write_contact_sheet
    from timeloom.data.order import Order
    from timeloom.data.sources import open_sources
    from timeloom.data.write import check_output
    from timeloom.train.feed import Feed
    from timeloom.train.recipe import load_recipe
    from timeloom.train.task import SampleRandom
    from timeloom.train.upscaler import UpscalerTask, seeds_of
    from timeloom.upscaler import to_bytes

    check_output(options.output, options.overwrite)
    recipe = load_recipe(recipes.find(options.recipe), options.set)
    if not recipe.task.startswith("upscaler"):
        raise TimeloomError(f"{options.recipe} trains the {recipe.task}; only an upscaler learns from degraded clips.")
    task = UpscalerTask(recipe, torch.device("cpu"))
    training, _ = open_sources(recipe.data, recipe.seed)
    order = Order(training, recipe.data.window, recipe.seed, 1)
    feed = Feed(order, workers=0, allow_broken=True, windows=recipe.data.windows)
    rows, captions, told = [], [], []
    for number in range(options.clips):
        batch, random = feed.batch([number]), SampleRandom(recipe.seed, [number])
        large = task.crops(batch, random)[0]
        degradation = task.degrader.sample(seeds_of(random)[0])
        small = task.degrader.degrade(large, degradation)
        blocks = small.repeat_interleave(task.scale, dim=-1).repeat_interleave(task.scale, dim=-2)
        rows += [to_bytes(large), to_bytes(blocks)]
        captions += [batch.captions[0], describe(degradation)]
        told.append({"caption": batch.captions[0], **degradation.to_json()})
    write_contact_sheet(options.output, rows, captions, frames_per_clip=options.frames_per_clip, title=options.recipe)
    print(json.dumps(told) if options.json else options.output)
    return 0


def describe(degradation: Degradation) -> str:
    """What a clip goes through, in one line, step by step."""
    first, second = degradation.first, degradation.second
    last = f"H.264 crf {degradation.h264_crf}" if degradation.h264_crf is not None else f"JPEG {second.jpeg_quality}"
    ringing = [f"last {_blur(degradation.last_sinc)}"] if degradation.last_sinc else []
    end = [*ringing, last] if degradation.sinc_first else [last, *ringing]
    steps = [*_stage(first), f"JPEG {first.jpeg_quality}", *_stage(second), *end]
    return ", ".join(steps + (["autoencoder"] if degradation.autoencoder else []))


def _stage(stage: Stage) -> list[str]:
    colour = "gray " if stage.gray_noise else ""
    noise = f"{colour}{stage.noise} noise {stage.noise_level:.1f}"
    size = f"{stage.mode} x{stage.factor:.2f}"
    return [*([_blur(stage.blur)] if stage.blur else []), size, noise]


def _blur(blur: Blur) -> str:
    if blur.shape == "sinc":
        return f"sinc {blur.cutoff:.1f}"
    wide = "/".join(f"{sigma:.1f}" for sigma in dict.fromkeys(blur.sigmas))
    return f"{blur.shape} blur {wide}"
