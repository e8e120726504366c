"""A run's folder belongs to one recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.schema import check
from timeloom.train.recipe import Recipe

MANNER = {"output", "workers", "preview", "evaluation", "compile", "gradient_checkpointing", "parallel", "trackers"}
"""Options that say how a run is done; they may change when it goes on."""
SCHEDULE_MANNER = {"log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "micro_batch_size"}
"""The same in `schedule`."""


def claim(folder: Path, recipe: Recipe, clips: Mapping[str, int], started: bool, write: bool) -> None:
    """Check that the folder's run, where one has `started`, is the recipe's; then write the recipe down, if told to.

    Args:
        clips: how many there are to train on and how many are held out; with others, which sample is which clip would
            not be what it was.

    Raises:
        TimeloomError: the run differs in an option that decides the weights, or in its clips.
    """
    path, counted = folder / "recipe.json", folder / "clips.json"
    if started and path.exists():
        theirs = _flat(_deciding(check(Recipe, json.loads(path.read_text(encoding="utf-8")), path)))
        mine = _flat(_deciding(recipe))
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise TimeloomError(
                    f"{folder} holds a run with {name} = {theirs.get(name)!r}, and this one has {mine.get(name)!r}; "
                    "train into another folder (output=...) or remove this one."
                )
    if started and counted.exists():
        before = json.loads(counted.read_text(encoding="utf-8"))
        if before != clips:
            raise TimeloomError(
                f"{folder} holds a run on other data: {_told(before)}, and there are {_told(clips)} now, so that it "
                "cannot go on as it was. Bring the data back, or train into another folder (output=...); it may start "
                "from this run's model/."
            )
    if write:
        replace_file(path, json.dumps(recipe.model_dump(mode="json"), indent=2).encode())
        replace_file(counted, json.dumps(clips).encode())


def _told(clips: Mapping[str, int]) -> str:
    return f"{clips['training']:,} clips and {clips['held_out']:,} held out"


def _flat(options: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Options of all groups under their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{group}{name}.") if isinstance(value, dict) and value else {f"{group}{name}": value}
    return flat


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """The options that decide the weights."""
    options = recipe.model_dump(mode="json", exclude=MANNER)
    del options["data"]["cache"]
    del options["model"]["family"]  # says what is planned, not what is trained
    if lora := options["model"]["lora"]:
        del lora["dtype"]  # says how the adapter is stored
    options["schedule"] = {key: value for key, value in options["schedule"].items() if key not in SCHEDULE_MANNER}
    return options
