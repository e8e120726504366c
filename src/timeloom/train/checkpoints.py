"""Checkpoints of a training run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from timeloom.errors import TimeloomError


class Checkpoints:
    """Numbered folders, each whole or absent; the last few are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def saved(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.suffix == "" and path.is_dir())

    def save(self, samples: int, state: dict[str, Any]) -> None:
        """Write beside, then rename; drop the oldest."""
        unfinished = self.folder / f"{samples:012d}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with (unfinished / "state.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        target = self.folder / f"{samples:012d}"
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        for old in self.saved()[: -self.keep]:
            shutil.rmtree(old)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, if there is one."""
        saved = self.saved()
        if not saved:
            return None
        try:
            return torch.load(saved[-1] / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:
            raise TimeloomError(
                f"{saved[-1]} cannot be read ({error}); remove it to go on from the one before."
            ) from error
