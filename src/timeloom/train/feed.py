"""From clips to batches, in an order that is a function of (seed, samples seen)."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from timeloom.data import ClipSource, DigitsSource, Window
from timeloom.train.task import Batch, start_positions


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, clips: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(clips)


def clip_of_sample(seed: int, number: int, clips: int) -> int:
    """Which clip the training sample of this number is: each once an epoch, every epoch in its own order."""
    epoch, position = divmod(number, clips)
    return int(_epoch_order(seed, epoch, clips)[position])


def read_batch(source: ClipSource, indices: list[int], window: Window, starts: list[float]) -> Batch:
    """Draw clips, all at once where the source can."""
    if isinstance(source, DigitsSource):
        return Batch(*source.draw_batch(indices, window, starts))
    clips = [source[index] for index in indices]
    frames = [clip.draw(window, start) for clip, start in zip(clips, starts, strict=True)]
    return Batch(np.stack(frames), [clip.caption for clip in clips])


class Feed:
    """Batches of training samples, drawn ahead of the network by threads.

    Args:
        source: the training clips.
        window: what is drawn of each.
        seed: of the order and of where windows begin.
        workers: threads; each draws a whole batch.
    """

    def __init__(self, source: ClipSource, window: Window, seed: int, workers: int) -> None:
        self.source, self.window, self.seed, self.workers = source, window, seed, workers

    def batch(self, numbers: list[int]) -> Batch:
        """The samples of these numbers."""
        indices = [clip_of_sample(self.seed, number, len(self.source)) for number in numbers]
        return read_batch(self.source, indices, self.window, start_positions(self.seed, numbers))

    def __call__(self, batches: Iterator[list[int]]) -> Iterator[tuple[list[int], Batch]]:
        """(sample numbers, batch) for each list of numbers, in order, `workers` batches ahead."""
        if self.workers == 0:
            yield from ((numbers, self.batch(numbers)) for numbers in batches)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead: deque[tuple[list[int], Future[Batch]]] = deque()
            for numbers in batches:
                ahead.append((numbers, pool.submit(self.batch, numbers)))
                if len(ahead) > self.workers:
                    done, future = ahead.popleft()
                    yield done, future.result()
            while ahead:
                done, future = ahead.popleft()
                yield done, future.result()
