"""A run's folder belongs to one recipe."""

from __future__ import annotations

import json
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


def claim(folder: Path, recipe: Recipe, started: bool, write: bool) -> None:
    """Check that the folder's run, where one has `started`, is the recipe's; then write the recipe down, if told to.

    Raises:
        TimeloomError: the run differs in an option that decides the weights.
    """
    path = folder / "recipe.json"
    if started and path.exists():
        mine = _deciding(recipe)
        theirs = _deciding(check(Recipe, json.loads(path.read_text(encoding="utf-8")), path))
        for key, value in mine.items():
            if value != theirs[key]:
                raise TimeloomError(
                    f"{folder} holds a run with another {key!r}; train into another folder (output=...) "
                    "or remove this one."
                )
    if write:
        replace_file(path, json.dumps(recipe.model_dump(mode="json"), indent=2).encode())


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """The options that decide the weights."""
    options = recipe.model_dump(mode="json", exclude=MANNER)
    del options["data"]["cache"]
    del options["model"]["family"]  # says what is planned, not what is trained
    if lora := options["model"]["lora"]:
        del lora["dtype"]  # says how the adapter is stored
    options["schedule"] = {key: value for key, value in options["schedule"].items() if key not in SCHEDULE_MANNER}
    return options
