"""What a clip is: the contract between everything that finds clips and everything that uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (F, H, W, 3), RGB

EXAMPLES = 1000
"""So many dropped items of each reason are named; the rest are counted."""
LISTED_REASONS = 8


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
    """Pixels, as displayed; 0 where only the file could tell (and so for `height` and `fps`)."""
    height: int
    fps: float
    duration_s: float
    """Seconds; NaN where only the file could tell."""
    draw: Callable[[Window, float], Frames]
    """draw(window, start) -> uint8 (F, H, W, 3); `start` in [0, 1] places the window between the clip's ends."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Exact ground truth, where the source has it."""
    still: bool = False
    """A picture: a clip of one frame. Drawn as more, the frame is repeated; training draws it as one (see order.py)."""
    identity: Callable[[], tuple[Any, ...]] | None = None
    """identity() -> what tells the clip's frames from all others: file, bytes, time of change, span. Raises what `draw`
    raises. None for frames that are drawn from nothing, faster than they could be kept."""


@dataclass(frozen=True)
class Outline:
    """What is known of all clips of a source at once, without making them: arrays of one entry a clip."""

    heights: NDArray[np.int32]
    """Pixels, as displayed; 0 where only the file could tell."""
    widths: NDArray[np.int32]
    stills: NDArray[np.bool_]
    groups: NDArray[np.int64]
    """Clips that were cut from one video have the same number, so that they can stay on one side of a split."""

    def of(self, indices: NDArray[np.int64]) -> Outline:
        """The entries of these clips."""
        return Outline(self.heights[indices], self.widths[indices], self.stills[indices], self.groups[indices])


@dataclass
class Ledger:
    """Counts what a source found, used and dropped, so that nothing is dropped in silence."""

    found: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """(what, why) of items left out; of each reason the first EXAMPLES."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many items were left out, by reason."""

    def drop(self, item: str, reason: str) -> None:
        """Record that `item` is left out for `reason`."""
        self.drop_many([item], reason, 1)

    def drop_many(self, examples: Iterable[str], reason: str, count: int) -> None:
        """Record that `count` items, `examples` among them, are left out for `reason`."""
        room = max(0, EXAMPLES - self.reasons[reason])
        self.dropped += [(item, reason) for item in islice(examples, room)]
        self.reasons[reason] += count

    @classmethod
    def total(cls, ledgers: Iterable[Ledger]) -> Ledger:
        """All of them in one."""
        total = cls()
        for ledger in ledgers:
            total.found += ledger.found
            total.dropped += ledger.dropped
            total.reasons += ledger.reasons
        return total

    @property
    def used(self) -> int:
        return self.found - self.reasons.total()

    def summary(self) -> str:
        """One line: found, used, dropped, and how many for each reason."""
        line = f"{self.found} found, {self.used} used, {self.reasons.total()} dropped"
        listed = [f"{count} {reason}" for reason, count in self.reasons.most_common(LISTED_REASONS)]
        if len(self.reasons) > LISTED_REASONS:
            listed.append(f"{len(self.reasons) - LISTED_REASONS} further reasons")
        return line + (f" ({'; '.join(listed)})" if listed else "")


class ClipSource(Protocol):
    """A sized, indexable collection of clips. Random access makes order, resume and sharding arithmetic."""

    @property
    def ledger(self) -> Ledger: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def outline(self) -> Outline: ...
