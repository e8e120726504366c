"""`timeloom data cache RECIPE`: encode every clip and caption of a recipe ahead of training, or check what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import tyro

from timeloom.errors import TimeloomError
from timeloom.options import parse

if TYPE_CHECKING:
    from timeloom.tensor_cache import TensorCache
    from timeloom.train.cache_jobs import Windows
    from timeloom.train.encode import Encoder
    from timeloom.train.recipe import Recipe

SHOWN = 10


@dataclass(frozen=True)
class CacheOptions:
    """Encode every window and caption of a recipe's clips once, ahead of training. What is there is read and kept, what
    is damaged is made again: an interrupted command goes on where it stopped. Under torchrun the processes share the
    work."""

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe of an image or video model: a YAML file, or the name of a packaged one."""
    set: list[str] = field(default_factory=list)
    """Changes to the recipe, in YAML: --set data.path=clips model.vae=FOLDER."""
    check: bool = False
    """Encode nothing: read everything that is there, and tell what is missing or damaged (then the exit code is 1)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes an accelerator where there is one."""
    allow_drop: bool = False
    """Go on although more than 20 % of a source's clips are dropped."""
    json: bool = False
    """Print the counts as JSON."""


@dataclass
class Counts:
    """What was found of windows, or of captions."""

    there: int = 0
    encoded: int = 0
    missing: int = 0
    """Of a check."""
    damaged: int = 0
    """Also among the encoded, or, of a check, among the missing."""

    def add(self, there: bool, damaged: bool, check: bool) -> bool:
        """Count one; whether it is to be encoded now."""
        self.there += there
        self.damaged += damaged
        self.missing += check and not there
        self.encoded += not check and not there
        return not check and not there


@dataclass
class Report:
    """What the command did."""

    folders: list[str]
    windows: Counts = field(default_factory=Counts)
    captions: Counts = field(default_factory=Counts)
    broken: dict[str, int] = field(default_factory=dict)
    """Windows that cannot be read, by reason."""


def main(args: list[str]) -> int:
    """Run `timeloom data cache`."""
    options = parse(CacheOptions, args[1:], prog="timeloom data cache")
    import torch

    torch.set_flush_denormal(True)
    from timeloom import recipes
    from timeloom.device import choose_device
    from timeloom.train.cache_jobs import open_windows
    from timeloom.train.encode import Encoder
    from timeloom.train.recipe import load_recipe

    allowed = ["data.allow_drop=true"] if options.allow_drop else []
    recipe = load_recipe(recipes.find(options.recipe), [*options.set, *allowed])
    _require_something_to_keep(recipe, options.recipe)
    device = choose_device(options.device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    encoder = Encoder(recipe, device, must_keep=True)
    windows, lines = open_windows(recipe, encoder)
    room = encoder.plan_cache(windows.training, windows.held_out, recipe.data)
    if not options.json:
        print("\n".join([*lines, room or ""]))
    if not options.check and not encoder.keeps:
        raise TimeloomError(f"{room}.")
    report = _go_through(windows, encoder, recipe, options.check)
    _print(report, options)
    return 1 if options.check and (report.windows.missing or report.captions.missing) else 0


def _require_something_to_keep(recipe: Recipe, name: str) -> None:
    if recipe.task not in ("image", "video"):
        raise TimeloomError(f"{name} trains on pixels (task: {recipe.task}): there is nothing to encode ahead.")
    if all(source.source == "digits" for source in recipe.data.chosen):
        raise TimeloomError(f"{name} trains on digits, which are drawn anew each time: there is nothing to keep.")
    if not recipe.data.cache or recipe.data.windows is None:
        raise TimeloomError(f"{name}: with data.cache: false or data.windows: null nothing is kept.")


def _go_through(windows: Windows, encoder: Encoder, recipe: Recipe, check: bool) -> Report:
    """Read every window and caption of this process's share; encode what is missing, unless this is a check."""
    from rich.console import Console
    from rich.progress import track

    from timeloom.train.feed import load
    from timeloom.train.task import Batch

    assert encoder.latent_cache is not None and encoder.text_cache is not None
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    report = Report([str(encoder.latent_cache.files.folder), str(encoder.text_cache.folder)])
    jobs: Iterator = islice(windows.jobs(), rank, None, world)
    found = load(windows.reader(check), jobs, recipe.workers)
    total = len(range(rank, windows.count, world))
    doing = "Checking" if check else "Encoding"
    for item in track(found, doing, total, console=Console(stderr=True), transient=True):
        if item.broken:
            report.broken[item.broken] = report.broken.get(item.broken, 0) + 1
            if sum(report.broken.values()) <= SHOWN:
                Console(stderr=True).print(f"{item.key}: {item.broken}", highlight=False)
            continue
        if report.windows.add(item.there, item.damaged, check):
            encoder.latents(Batch([item.example]))
        if item.first:
            there, damaged = _look_for_text(encoder.text_cache, item.caption)
            if report.captions.add(there, damaged, check):
                encoder.text([item.caption])
    return report


def _look_for_text(cache: TensorCache, caption: str) -> tuple[bool, bool]:
    """Whether a caption's features are there, and whether they are damaged."""
    from timeloom.tensor_cache import DamagedFile

    try:
        return cache.read(cache.path(caption)) is not None, False
    except DamagedFile:
        return False, True


def _print(report: Report, options: CacheOptions) -> None:
    import json

    if options.json:
        print(json.dumps(asdict(report), indent=2))
        return
    for name, counts in (("windows", report.windows), ("captions", report.captions)):
        done = f"{counts.missing:,} missing" if options.check else f"{counts.encoded:,} encoded now"
        damaged = f", {counts.damaged:,} of them damaged" if counts.damaged else ""
        print(f"{name}: {counts.there:,} there, {done}{damaged}")
    for reason, count in report.broken.items():
        print(f"broken: {count:,} {reason}")
    print("\n".join(report.folders))
