"""From clips to batches, in an order that is a function of (seed, samples seen)."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from timeloom.data import Clip, ClipSource, DigitsSource, Frames, Ledger, Window
from timeloom.data.order import Order, Sample
from timeloom.errors import TimeloomError
from timeloom.train.task import Batch, start_positions

SUBSTITUTES = 8
"""So many other clips are tried for one that cannot be read."""
BROKEN_LIMIT = 0.2
"""Of the samples read; more needs `--allow-drop`."""
ENOUGH_TO_JUDGE = 100
SHOWN = 10

VOCABULARY_CAPTIONS = 20_000
"""At most so many captions are shown to a task before training."""

Broken = list[tuple[str, str]]
"""(what, why) of clips that could not be read."""


def read_batch(source: ClipSource, indices: list[int], window: Window, starts: list[float]) -> Batch:
    """Draw clips, all at once where the source can. The next that can be read stands for one that cannot."""
    if isinstance(source, DigitsSource):
        return Batch(*source.draw_batch(indices, window, starts))
    following = [[(index + 1 + i) % len(source) for i in range(SUBSTITUTES)] for index in indices]
    drawn = [
        _draw(source, [index, *others], window, start, [])
        for index, others, start in zip(indices, following, starts, strict=True)
    ]
    return _stacked(drawn)


def _draw(
    source: ClipSource, candidates: Iterable[int], window: Window, start: float, broken: Broken
) -> tuple[Clip, Frames]:
    """The first of the candidates that can be read, and its window; the others are appended to `broken`."""
    for index in candidates:
        clip = source[index]
        try:
            return clip, clip.draw(window, start)
        except TimeloomError as error:
            broken.append((clip.key, str(error)))
    raise TimeloomError(
        f"{len(broken)} clips in a row cannot be read, the last because: {broken[-1][1]} Are the videos still there?"
    )


def _stacked(drawn: list[tuple[Clip, Frames]]) -> Batch:
    return Batch(np.stack([frames for _, frames in drawn]), [clip.caption for clip, _ in drawn])


def first_captions(order: Order) -> Iterator[str]:
    """Of the first training samples, and so of every source."""
    for number in range(min(len(order.source), VOCABULARY_CAPTIONS)):
        yield order.source[order(number).index].caption


class Feed:
    """Batches of training samples, drawn ahead of the network by threads.

    A clip that turns out to be broken is replaced by another of its source and bucket, chosen by (seed, number,
    attempt): the same one in every run over the same files, so that resuming stays exact. `ledger` counts samples read
    and what was broken.

    Args:
        order: which clip each sample is.
        workers: threads; each draws a whole batch.
        allow_broken: go on although more than 20 % of the samples cannot be read.
    """

    def __init__(self, order: Order, workers: int, allow_broken: bool = False) -> None:
        self.order, self.workers, self.allow_broken = order, workers, allow_broken
        self.ledger = Ledger()

    def batch(self, numbers: list[int]) -> Batch:
        """The samples of these numbers, which must be of one bucket: a batch's, or part of them."""
        return self._count(*self._read([self.order(number) for number in numbers]))

    def _read(self, samples: list[Sample]) -> tuple[Batch, int, Broken]:
        source, window = self.order.source, samples[0].window
        starts = start_positions(self.order.seed, [sample.number for sample in samples])
        if isinstance(source, DigitsSource):
            return read_batch(source, [sample.index for sample in samples], window, starts), len(samples), []
        broken: Broken = []
        drawn = [
            _draw(source, self.order.candidates(sample, SUBSTITUTES), window, start, broken)
            for sample, start in zip(samples, starts, strict=True)
        ]
        return _stacked(drawn), len(samples), broken

    def _count(self, batch: Batch, read: int, broken: Broken) -> Batch:
        """Count what was broken, say so, and refuse to go on where it is too much."""
        self.ledger.found += read + len(broken)
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
        return batch

    def __call__(self, batches: Iterator[list[int]]) -> Iterator[tuple[list[int], Batch]]:
        """(sample numbers, batch) for each list of numbers, in order, `workers` batches ahead."""
        if self.workers == 0:
            yield from ((numbers, self.batch(numbers)) for numbers in batches)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead: deque[tuple[list[int], Future[tuple[Batch, int, Broken]]]] = deque()
            for numbers in batches:
                ahead.append((numbers, pool.submit(self._read, [self.order(number) for number in numbers])))
                if len(ahead) > self.workers:
                    done, future = ahead.popleft()
                    yield done, self._count(*future.result())
            while ahead:
                done, future = ahead.popleft()
                yield done, self._count(*future.result())
