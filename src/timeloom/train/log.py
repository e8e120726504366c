"""What a training run writes down as it goes."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timeloom.data.write import replace_file
from timeloom.train.trackers import Tracker


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("TensorBoard is not installed, so stats.jsonl alone is written: pip install tensorboard", file=sys.stderr)
        return None
    return SummaryWriter(str(folder))


class Means:
    """Means of named numbers, each over the times that it was added."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, **numbers: float) -> None:
        """One more value of each."""
        for name, number in numbers.items():
            self.values[name].append(number)

    def take(self) -> dict[str, float]:
        """The means since the last time."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values.clear()
        return means


class Log:
    """`stats.jsonl` and TensorBoard always, and the trackers that the recipe names."""

    def __init__(
        self, folder: Path, active: bool, trackers: Sequence[str] = (), config: dict[str, Any] | None = None
    ) -> None:
        self.folder, self.active, self.board = folder, active, None
        self.trackers: list[Tracker] = []
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            self.board = _open_board(folder / "tensorboard")
            self.trackers = [Tracker(name, folder, config or {}) for name in trackers]

    def write(self, samples: int, **numbers: float) -> None:
        """Append numbers at this many samples."""
        if not self.active:
            return
        with (self.folder / "stats.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"samples": samples, **numbers}) + "\n")
        for name, value in numbers.items():
            if self.board:
                self.board.add_scalar(name, value, samples)
        for tracker in self.trackers:
            tracker.write(samples, numbers)

    def rewind(self, samples: int) -> set[str]:
        """Forget what was logged after a checkpoint from which training goes on; the names of what was logged at it."""
        path = self.folder / "stats.jsonl"
        if not (self.active and path.exists()):
            return set()
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["samples"] <= samples]
        replace_file(path, "".join(line + "\n" for line in kept).encode())
        at_it = (json.loads(line) for line in kept)
        return {name for numbers in at_it if numbers["samples"] == samples for name in numbers}

    def close(self) -> None:
        """Write out what is still held back."""
        if self.board:
            self.board.close()
        for tracker in self.trackers:
            tracker.finish()
