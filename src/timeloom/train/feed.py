"""From clips to batches, in an order that is a function of (seed, samples seen)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from timeloom.data import Clip, ClipSource, DigitsSource, Ledger, Window
from timeloom.data.order import Order
from timeloom.data.span import window_start
from timeloom.errors import TimeloomError
from timeloom.train.encode import LatentCache
from timeloom.train.task import Batch, Example, start_positions

HELD_OUT_START = 0.5
"""Held-out clips are seen in their middle."""
SUBSTITUTES = 8
"""So many other clips are tried for one that cannot be read."""
BROKEN_LIMIT = 0.2
"""Of the samples read; more needs `--allow-drop`."""
ENOUGH_TO_JUDGE = 100
SHOWN = 10

VOCABULARY_CAPTIONS = 20_000
"""At most so many captions are shown to a task before training."""

T = TypeVar("T")

Broken = list[tuple[str, str]]
"""(what, why) of clips that could not be read."""


def read_batch(
    source: ClipSource, indices: list[int], window: Window, starts: list[float], cache: LatentCache | None = None
) -> Batch:
    """Draw clips, all at once where the source can. The next that can be read stands for one that cannot."""
    if isinstance(source, DigitsSource):
        attributes = [source[index].attributes for index in indices]
        return Batch.of(*source.draw_batch(indices, window, starts), attributes)
    following = [[(index + 1 + i) % len(source) for i in range(SUBSTITUTES)] for index in indices]
    return Batch(
        [
            _first_readable(source, [index, *others], window, start, cache, [])
            for index, others, start in zip(indices, following, starts, strict=True)
        ]
    )


def read_example(clip: Clip, window: Window, start: float, cache: LatentCache | None) -> Example:
    """A window's latents where the cache has them, else its frames."""
    place = cache.path(clip, window, start) if cache is not None else None
    latents = cache.get(place) if cache is not None and place is not None else None
    frames = torch.from_numpy(clip.draw(window, start)) if latents is None else None
    return Example(clip.caption, frames, latents, place, clip.identity is not None, clip.attributes)


def _first_readable(
    source: ClipSource,
    candidates: Iterable[int],
    window: Window,
    start: float | tuple[int, int],
    cache: LatentCache | None,
    broken: Broken,
) -> Example:
    """A window of the first of the candidates that can be read; the others are appended to `broken`.

    `start` is a place in [0, 1], or (epoch, windows) for each clip's own place.
    """
    for index in candidates:
        clip = source[index]
        place = window_start(clip.key, *start) if isinstance(start, tuple) else start
        try:
            return read_example(clip, window, place, cache)
        except TimeloomError as error:
            broken.append((clip.key, str(error)))
    raise TimeloomError(
        f"{len(broken)} clips in a row cannot be read, the last because: {broken[-1][1]} Are the videos still there?"
    )


@dataclass
class _Answer:
    """What a worker gives back for some sample numbers."""

    numbers: list[int]
    batch: Batch = field(default_factory=lambda: Batch([]))
    broken: Broken = field(default_factory=list)
    error: str = ""
    """Why there is no batch; errors of workers would come with their traceback in the message."""

    def pin_memory(self) -> _Answer:
        self.batch = self.batch.pin_memory()
        return self


class _Reader(Dataset[_Answer]):
    """Batches by their sample numbers; goes to worker processes."""

    def __init__(self, order: Order, windows: int | None, cache: LatentCache | None) -> None:
        self.order, self.windows = order, windows
        self.cache = cache if windows is not None else None  # what begins anywhere does not come again

    def __getitem__(self, numbers: list[int]) -> _Answer:
        try:
            return self._read(numbers)
        except TimeloomError as error:
            return _Answer(numbers, error=str(error))

    def _read(self, numbers: list[int]) -> _Answer:
        samples = [self.order(number) for number in numbers]
        source, window = self.order.source, samples[0].window
        starts = start_positions(self.order.seed, numbers)
        if isinstance(source, DigitsSource):
            return _Answer(numbers, read_batch(source, [sample.index for sample in samples], window, starts))
        broken: Broken = []
        examples = [
            _first_readable(
                source,
                self.order.candidates(sample, SUBSTITUTES),
                window,
                start if self.windows is None else (sample.epoch, self.windows),
                self.cache,
                broken,
            )
            for sample, start in zip(samples, starts, strict=True)
        ]
        return _Answer(numbers, Batch(examples), broken)


def first_captions(order: Order) -> Iterator[str]:
    """Of the first training samples, and so of every source."""
    for number in range(min(len(order.source), VOCABULARY_CAPTIONS)):
        yield order.source[order(number).index].caption


class Feed:
    """Batches of training samples, read ahead of the network by worker processes.

    A clip that turns out to be broken is replaced by another of its source and bucket, chosen by (seed, number,
    attempt): the same one in every run over the same files, so that resuming stays exact. `ledger` counts samples read
    and what was broken.

    Args:
        order: which clip each sample is.
        workers: processes; each reads two whole batches ahead. 0 reads in this one.
        allow_broken: go on although more than 20 % of the samples cannot be read.
        windows: of each clip, seen in turn; None takes one anywhere each time.
        cache: where latents are that were encoded before.
        pinned: batches come in memory that a GPU can copy from while it computes.
    """

    def __init__(
        self,
        order: Order,
        workers: int,
        allow_broken: bool = False,
        windows: int | None = None,
        cache: LatentCache | None = None,
        pinned: bool = False,
    ) -> None:
        self.workers, self.allow_broken, self.pinned = workers, allow_broken, pinned
        self._reader = _Reader(order, windows, cache)
        self.ledger = Ledger()

    def batch(self, numbers: list[int]) -> Batch:
        """The samples of these numbers, which must be of one bucket: a batch's, or part of them."""
        return self._count(self._reader[numbers])

    def _count(self, answer: _Answer) -> Batch:
        """Count what was broken, say so, and refuse to go on where it is too much."""
        if answer.error:
            raise TimeloomError(answer.error)
        broken = answer.broken
        self.ledger.found += len(answer.numbers) + len(broken)
        for key, reason in broken:
            self.ledger.drop(key, "broken when read")
            if self.ledger.reasons.total() <= SHOWN:
                print(f"{key} is replaced by another clip: {reason}", file=sys.stderr)
        many = self.ledger.reasons.total() > BROKEN_LIMIT * max(self.ledger.found, ENOUGH_TO_JUDGE)
        if many and not self.allow_broken:
            raise TimeloomError(
                f"{self.ledger.reasons.total()} of {self.ledger.found} clips read are broken, more than "
                f"{BROKEN_LIMIT:.0%}; the last: {broken[-1][1]} Repair them, or accept it with --allow-drop."
            )
        return answer.batch

    def __call__(self, batches: Iterator[list[int]]) -> Iterator[tuple[list[int], Batch]]:
        """(sample numbers, batch) for each list of numbers, in order."""
        for answer in load(self._reader, batches, self.workers, self.pinned):
            yield answer.numbers, self._count(answer)


def load(reader: Dataset[T], items: Iterable[Any], workers: int, pinned: bool = False) -> Iterator[T]:
    """reader[item] for each item, in order, by worker processes.

    Raises: TimeloomError where a worker was killed.
    """
    loader: DataLoader[T] = DataLoader(
        reader,
        sampler=items,
        batch_size=None,
        num_workers=workers,
        collate_fn=as_it_is,
        pin_memory=pinned,
        generator=torch.Generator(),  # its own: torch's numbers are the network's
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TimeloomError(
            "A process that reads clips was killed, most often for want of memory. Run the same command again to go on "
            "from the last checkpoint; with fewer workers it takes less memory."
        ) from error


def as_it_is(item: T) -> T:
    """Keep the loader from looking into what a reader gives."""
    return item
