"""What a training run writes down as it goes."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from pathlib import Path


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
    """One status line, `stats.jsonl` always, TensorBoard where it is installed."""

    def __init__(self, folder: Path, active: bool) -> None:
        self.folder, self.active, self.board = folder, active, None
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, samples: int, **numbers: float) -> None:
        """Append numbers at this many samples."""
        if not self.active:
            return
        with (self.folder / "stats.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"samples": samples, **numbers}) + "\n")
        for name, value in numbers.items():
            if self.board:
                self.board.add_scalar(name, value, samples)

    def rewind(self, samples: int) -> None:
        """Forget what was logged after a checkpoint from which training goes on."""
        path = self.folder / "stats.jsonl"
        if self.active and path.exists():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["samples"] <= samples]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
