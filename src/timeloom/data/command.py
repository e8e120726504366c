"""`timeloom data view`: look at the clips that a recipe or a folder holds, captions under them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from timeloom.errors import TimeloomError, unknown_name
from timeloom.options import parse

if TYPE_CHECKING:
    from timeloom.data.clip import Clip, ClipSource, Frames
    from timeloom.data.order import Order
    from timeloom.data.sources import DataOptions


USAGE = """usage: timeloom data view SOURCE --output contact.png      draw what a network will see of some clips
       timeloom data cache RECIPE [--check]                 encode clips and captions ahead of training
       timeloom data degrade RECIPE                         draw what an upscaler learns from
(each has --help)"""
SHOWN = 1000
"""Characters of a caption on the sheet."""


@dataclass(frozen=True)
class ViewOptions:
    """Draw what a network will see of some clips as a contact sheet."""

    source: Annotated[str, tyro.conf.Positional]
    """A recipe (file or packaged name), a folder of captioned clips, or `digits`. Shows the first training samples."""
    output: Path = Path("contact.png")
    """PNG to write."""
    clips: int = 12
    """How many clips to draw."""
    frames_per_clip: int = 8
    """How many frames of each clip to show."""
    seed: int = 0
    """Which clips, and where in them the window begins."""
    split: str = "train"
    """For *digits*: train, validation or test."""
    overwrite: bool = False
    """Replace an existing output."""
    json: bool = False
    """Print counts, captions and ground truth as JSON."""


def main(args: list[str]) -> int:
    """Run `timeloom data view`."""
    if args[:1] != ["view"]:
        if args and not args[0].startswith("-"):
            raise unknown_name("data command", args[0], ["view", "cache", "degrade"])
        print(USAGE)
        return 0 if args else 2
    options = parse(ViewOptions, args[1:], prog="timeloom data view")
    return view(options)


def view(options: ViewOptions) -> int:
    """Draw the contact sheet, and say what was found."""
    import json

    from timeloom.data import write_contact_sheet
    from timeloom.data.order import Order
    from timeloom.data.write import check_output

    check_output(options.output, options.overwrite)
    data, source, lines = _open(options.source, options.split)
    window, ledger = data.window, source.ledger
    order = Order(source, window, options.seed, sizes=data.sizes)
    drawn = _draw(order, min(options.clips, len(source)), options.seed)
    clips, frames = [clip for clip, _ in drawn], [frames for _, frames in drawn]
    title = (
        f"{options.source}: {ledger.summary()}; {window.num_frames} frames at {window.fps:g} fps, "
        f"{window.width}x{window.height}"
    )
    captions = [clip.caption if len(clip.caption) <= SHOWN else clip.caption[:SHOWN] + "…" for clip in clips]
    write_contact_sheet(
        options.output, frames, captions, frames_per_clip=options.frames_per_clip, title=title, overwrite=True
    )
    if options.json:
        rows = [{"key": c.key, "caption": c.caption, "origin": c.origin, **c.attributes} for c in clips]
        dropped = [{"item": item, "reason": reason} for item, reason in ledger.dropped]
        counts = {"found": ledger.found, "used": ledger.used, "reasons": dict(ledger.reasons)}
        print(json.dumps({**counts, "dropped": dropped, "clips": rows}, indent=2))
    else:
        print("\n".join([*lines, *order.describe(), str(options.output)]))
    return 0


def _draw(order: Order, count: int, seed: int) -> list[tuple[Clip, Frames]]:
    """The first training samples, as the network will see them; what cannot be read is said and left out."""
    import numpy as np

    drawn = []
    for number in range(count):
        sample = order(number)
        clip = order.source[sample.index]
        try:
            drawn.append((clip, clip.draw(sample.window, float(np.random.default_rng([seed, number]).random()))))
        except TimeloomError as error:
            print(f"{clip.key} is left out: {error}", file=sys.stderr)
    if not drawn:
        raise TimeloomError("None of the clips that were to be shown can be read.")
    return drawn


def _open(name: str, split: str) -> tuple[DataOptions, ClipSource, list[str]]:
    """The options and the training clips of a recipe, of a folder, or of *digits*; and what was found."""
    from timeloom import recipes
    from timeloom.data import DigitsSource, FolderSource
    from timeloom.data.sources import DataOptions, describe_sources, open_sources
    from timeloom.schema import check, read_yaml

    if Path(name).is_dir():
        data = DataOptions(source="folder", path=name)
        source = FolderSource(name, window=data.window)
        return data, source, [f"{name}: {source.ledger.summary()}"]
    if name == "digits":
        data = DataOptions()
    else:
        path = recipes.find(name)
        recipe = read_yaml(path)
        data = check(DataOptions, recipe.get("data", {}), path)
        if data.sources or data.source != "digits" or split == "train":
            # Looking is how one finds out why so many are dropped.
            parts = open_sources(data.model_copy(update={"allow_drop": True}), recipe.get("seed", 0))
            return data, parts[0], describe_sources(data, *parts)
    if split not in ("train", "validation", "test"):
        raise unknown_name("split", split, ("train", "validation", "test"))
    digits = DigitsSource(split, **data.style)  # type: ignore[arg-type]
    return data, digits, [f"{data.title}, {split}: {digits.ledger.summary()}"]
