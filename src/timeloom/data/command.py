"""`timeloom data view`: look at the clips that a recipe or a folder holds, captions under them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from timeloom.errors import unknown_name
from timeloom.options import parse

if TYPE_CHECKING:
    from timeloom.data.clip import ClipSource, Window


@dataclass(frozen=True)
class ViewOptions:
    """Draw what a network will see of some clips as a contact sheet."""

    source: Annotated[str, tyro.conf.Positional]
    """A recipe (file or packaged name), a folder of captioned clips, or `digits`."""
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
            raise unknown_name("data command", args[0], ["view"])
        print("usage: timeloom data view SOURCE --output contact.png      (timeloom data view --help says more)")
        return 0 if args else 2
    options = parse(ViewOptions, args[1:], prog="timeloom data view")
    return view(options)


def view(options: ViewOptions) -> int:
    """Draw the contact sheet, and say what was found."""
    import json

    import numpy as np

    from timeloom.data import write_contact_sheet
    from timeloom.data.write import check_output

    check_output(options.output, options.overwrite)
    window, source = _open(options.source, options.split)
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(source))[: options.clips].tolist()
    clips = [source[index] for index in order]
    frames = [clip.draw(window, float(rng.random())) for clip in clips]
    title = (
        f"{options.source}: {source.ledger.summary()}; {window.num_frames} frames at {window.fps:g} fps, "
        f"{window.width}x{window.height}"
    )
    captions = [clip.caption for clip in clips]
    write_contact_sheet(
        options.output, frames, captions, frames_per_clip=options.frames_per_clip, title=title, overwrite=True
    )
    if options.json:
        rows = [{"key": c.key, "caption": c.caption, "origin": c.origin, **c.attributes} for c in clips]
        dropped = [{"item": item, "reason": reason} for item, reason in source.ledger.dropped]
        counts = {"found": source.ledger.found, "used": source.ledger.used}
        print(json.dumps({**counts, "dropped": dropped, "clips": rows}, indent=2))
    else:
        print(title)
        print(options.output)
    return 0


def _open(name: str, split: str) -> tuple[Window, ClipSource]:
    """The window and the training clips of a recipe, of a folder, or of *digits*."""
    from timeloom import recipes
    from timeloom.data import DigitsSource, FolderSource
    from timeloom.data.sources import DataOptions, open_sources
    from timeloom.schema import check, read_yaml

    if Path(name).is_dir():
        data = DataOptions(source="folder", path=name)
        return data.window, FolderSource(name, window=data.window)
    if name == "digits":
        data = DataOptions()
    else:
        path = recipes.find(name)
        recipe = read_yaml(path)
        data = check(DataOptions, recipe.get("data", {}), path)
        if data.source != "digits" or split == "train":
            return data.window, open_sources(data, recipe.get("seed", 0))[0]
    if split not in ("train", "validation", "test"):
        raise unknown_name("split", split, ("train", "validation", "test"))
    return data.window, DigitsSource(split)  # type: ignore[arg-type]
