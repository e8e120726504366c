"""Choosing sources by label: so many in all, each label its share, by lot of a seed.

One pass over a listing of any length. Every item draws a number from (seed, its name), and of each label those with the
smallest numbers are kept: which ones does not depend on the order of the listing, on machines, or on other labels.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from timeloom.errors import TimeloomError, unknown_name

Shares = Mapping[str, float] | Literal["natural", "equal"]


@dataclass
class Sample:
    """What was chosen of a listing."""

    chosen: list[tuple[str, str]] = field(default_factory=list)
    """(item, label), in the order of their names."""
    found: Counter[str] = field(default_factory=Counter)
    """Items of the listing, by label."""
    quotas: dict[str, int] = field(default_factory=dict)
    """Items that were chosen, by label."""

    @property
    def left_out(self) -> int:
        return self.found.total() - len(self.chosen)


def sample(items: Iterable[tuple[str, str]], count: int | None, shares: Shares = "natural", seed: int = 0) -> Sample:
    """Choose `count` of the (item, label) pairs, or all there are where they are fewer; None chooses all.

    shares: of each label, relative to the others; labels that are not named are left out. "natural" gives each label
    its share of the listing, "equal" the same to all. What a label lacks is given by the others, by their shares.

    Raises: TimeloomError where `shares` names a label that no item has.
    """
    result = Sample()
    # The largest priorities are thrown out first, so a heap of negated numbers holds the smallest of each label.
    heaps: dict[str, list[tuple[int, str]]] = {}
    everything = count is None
    for item, label in items:
        result.found[label] += 1
        if isinstance(shares, Mapping) and label not in shares:
            continue
        heap = heaps.setdefault(label, [])
        entry = (-_priority(seed, item), item)
        if everything or len(heap) < (count or 0):
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    if isinstance(shares, Mapping) and (strange := [label for label in shares if label not in result.found]):
        raise unknown_name("label in sampling.shares:", strange[0], result.found)
    weights = {label: _weight(shares, label, result.found) for label in heaps}
    available = {label: result.found[label] for label in heaps}
    result.quotas = quotas(available, weights, sum(available.values()) if everything else count or 0)
    for label, heap in heaps.items():
        result.chosen += [(item, label) for _, item in heapq.nlargest(result.quotas[label], heap)]
    result.chosen.sort()
    return result


def _priority(seed: int, item: str) -> int:
    content = f"{seed} {item}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _weight(shares: Shares, label: str, found: Mapping[str, int]) -> Fraction:
    if shares == "equal":
        return Fraction(1)
    return Fraction(found[label]) if shares == "natural" else Fraction(str(shares[label]))


def quotas(available: Mapping[str, int], weights: Mapping[str, Fraction], count: int) -> dict[str, int]:
    """Whole numbers that add up to `count`, or to all there are, in proportion to `weights`, none above `available`.

    Rounded by largest remainder; ties go to the label that is first by name.
    """
    full: dict[str, int] = {}
    open_labels = sorted(label for label in available if weights[label] > 0)
    while True:
        rest, total = count - sum(full.values()), sum(weights[label] for label in open_labels)
        due = {label: weights[label] * rest / total for label in open_labels}
        short = [label for label in open_labels if due[label] >= available[label]]
        if not short:
            break
        full.update((label, available[label]) for label in short)
        open_labels = [label for label in open_labels if label not in short]
    given = {label: int(amount) for label, amount in due.items()}
    by_remainder = sorted(open_labels, key=lambda label: (given[label] - due[label], label))
    for label in by_remainder[: rest - sum(given.values()) if open_labels else 0]:
        given[label] += 1
    return {label: {**full, **given}.get(label, 0) for label in sorted(available)}


def check_shares(shares: Shares) -> None:
    """Raise TimeloomError where the shares are none."""
    if isinstance(shares, Mapping) and (not shares or any(not 0 <= share < float("inf") for share in shares.values())):
        raise TimeloomError("sampling.shares must give labels shares of 0 or more.")
    if isinstance(shares, Mapping) and not any(shares.values()):
        raise TimeloomError("sampling.shares must give some label more than 0.")
