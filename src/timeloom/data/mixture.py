"""Several sources as one, and parts of a source: both are sources themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from timeloom.data.clip import Clip, ClipSource, Ledger, Outline


class Part:
    """Some clips of a source, by index."""

    def __init__(self, source: ClipSource, indices: NDArray[np.int64]) -> None:
        self.source, self.indices = source, indices

    @property
    def ledger(self) -> Ledger:
        return self.source.ledger

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        return self.source[int(self.indices[index])]

    def outline(self) -> Outline:
        return self.source.outline().of(self.indices)


class Mixture:
    """Sources one after the other, each with a weight in training (see order.py)."""

    def __init__(self, parts: Sequence[tuple[ClipSource, Fraction]]) -> None:
        self.parts = list(parts)
        self._firsts = [0, *accumulate(len(part) for part, _ in parts)]

    @property
    def ledger(self) -> Ledger:
        return Ledger.total(part.ledger for part, _ in self.parts)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        place = bisect_right(self._firsts, index) - 1
        return self.parts[place][0][index - self._firsts[place]]

    def outline(self) -> Outline:
        outlines = [part.outline() for part, _ in self.parts]
        groups, first = [], 0
        for outline in outlines:  # sources share no video
            groups.append(outline.groups + first)
            first += int(outline.groups.max(initial=-1)) + 1
        return Outline(
            np.concatenate([outline.heights for outline in outlines]),
            np.concatenate([outline.widths for outline in outlines]),
            np.concatenate([outline.stills for outline in outlines]),
            np.concatenate(groups),
        )


def parts_of(source: ClipSource) -> list[tuple[ClipSource, Fraction]]:
    """The sources of a mixture with their weights; of any other source itself alone."""
    return source.parts if isinstance(source, Mixture) else [(source, Fraction(1))]
