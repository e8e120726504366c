"""Experiment trackers: the same numbers as `stats.jsonl`, on somebody's dashboard.

Weights & Biases and Trackio share three calls: init, log, finish. No tracker can stop a run: what it cannot do, for
want of a network or a login, is said once, and everything is in `stats.jsonl` all the same.
"""

from __future__ import annotations

import importlib
import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError

PROJECT = "timeloom"


class Tracker:
    """One run in one tracker; a training run that goes on goes on there too.

    Args:
        name: of the package, "wandb" or "trackio".
        folder: of the training run; it keeps the name that the tracker knows it by.
        config: the recipe.

    Raises:
        TimeloomError: the package is not installed.
    """

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        try:
            self.package: Any = importlib.import_module(name)
        except ImportError as error:
            raise TimeloomError(f"trackers: {name} needs the package {name}: pip install 'timeloom[{name}]'") from error
        self.name, self.works = name, True
        run = run_name(folder)
        options: dict[str, Any] = {"project": PROJECT, "name": run, "resume": "allow", "config": config}
        if name == "wandb":
            options |= {"id": run, "dir": str(folder)}
        self._try("init", **options)

    def write(self, samples: int, numbers: dict[str, float]) -> None:
        """Numbers at this many samples."""
        self._try("log", dict(numbers), step=samples)

    def finish(self) -> None:
        """Send what is left."""
        self._try("finish")

    def _try(self, call: str, *args: Any, **options: Any) -> None:
        if not self.works:
            return
        try:
            getattr(self.package, call)(*args, **options)
        except Exception as error:  # a network, a login, a server: nothing that training needs
            self.works = False
            print(f"{self.name} is left out from here on ({error}); stats.jsonl has everything.", file=sys.stderr)


def run_name(folder: Path) -> str:
    """What trackers know the training run in `folder` by, made up once and kept there."""
    path = folder / "trackers.json"
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["run"])
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', folder.resolve().name)}-{secrets.token_hex(4)}"
    replace_file(path, json.dumps({"run": name}).encode())
    return name
