"""What a clip is: the contract between everything that finds clips and everything that uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (F, H, W, 3), RGB


@dataclass(frozen=True)
class Window:
    """What a network wants to see of a clip: `num_frames` evenly spaced at `fps`, each `height` x `width` pixels."""

    num_frames: int
    fps: float
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        """Seconds that the window spans; frame i shows the time i / fps."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class Clip:
    """One captioned clip: what it is, and how to draw a window of it."""

    key: str
    """Unique within its source; names the clip in logs and ledgers."""
    caption: str
    origin: str
    """File, or data set and index, that the frames come from."""
    width: int
    height: int
    fps: float
    duration_s: float
    draw: Callable[[Window, float], Frames]
    """draw(window, start) -> uint8 (F, H, W, 3); `start` in [0, 1] places the window between the clip's ends."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Exact ground truth, where the source has it."""


@dataclass
class Ledger:
    """Counts what a source found, used and dropped, so that nothing is dropped in silence."""

    found: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """(what, why) of every item left out."""

    def drop(self, item: str, reason: str) -> None:
        """Record that `item` is left out for `reason`."""
        self.dropped.append((item, reason))

    @property
    def used(self) -> int:
        return self.found - len(self.dropped)

    def summary(self) -> str:
        """One line: found, used, dropped, and how many for each reason."""
        line = f"{self.found} found, {self.used} used, {len(self.dropped)} dropped"
        reasons = Counter(reason for _, reason in self.dropped)
        return line + (f" ({'; '.join(f'{n} {why}' for why, n in reasons.most_common())})" if reasons else "")


class ClipSource(Protocol):
    """A sized, indexable collection of clips. Random access makes order, resume and sharding arithmetic."""

    ledger: Ledger

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...
