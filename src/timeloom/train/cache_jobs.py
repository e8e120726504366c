"""Every window that a recipe's training and validation will see, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch.utils.data import Dataset

from timeloom.data.clip import ClipSource, Window
from timeloom.data.order import Order
from timeloom.data.sources import describe_sources, open_sources
from timeloom.data.span import window_start
from timeloom.errors import TimeloomError
from timeloom.tensor_cache import DamagedFile
from timeloom.train.encode import Encoder, LatentCache
from timeloom.train.feed import HELD_OUT_START, read_example
from timeloom.train.recipe import Recipe
from timeloom.train.task import Example


@dataclass(frozen=True)
class Job:
    """One window. `epoch` None is the held-out one."""

    index: int
    window: Window
    epoch: int | None


@dataclass
class Found:
    """What was found of a window."""

    key: str
    caption: str
    first: bool
    """The first window of its clip."""
    there: bool = False
    damaged: bool = False
    broken: str = ""
    """Why it cannot be read."""
    example: Example = field(default_factory=lambda: Example("", None))
    """With frames, where they are to be encoded."""


class Windows:
    """The windows of a recipe's clips."""

    def __init__(
        self, training: ClipSource, held_out: ClipSource, order: Order, window: Window, turns: int, cache: LatentCache
    ) -> None:
        self.training, self.held_out, self.order, self.window = training, held_out, order, window
        self.turns, self.cache = turns, cache
        self._stills = training.outline().stills
        stills = int(self._stills.sum())
        self.count = (len(training) - stills) * turns + stills + len(held_out)

    def jobs(self) -> Iterator[Job]:
        """Every window once, the held-out ones first."""
        yield from (Job(index, self.window, None) for index in range(len(self.held_out)))
        for index, window in self.order.clips():
            for epoch in range(1 if self._stills[index] else self.turns):
                yield Job(index, window, epoch)

    def reader(self, check: bool) -> Dataset[Found]:
        """Looks for the latents of a job; draws the frames where there are none, unless this is a check."""
        return _Reader(self, check)

    def look(self, job: Job, check: bool) -> Found:
        clip = self.held_out[job.index] if job.epoch is None else self.training[job.index]
        found = Found(clip.key, clip.caption, first=not job.epoch)
        start = HELD_OUT_START if job.epoch is None else window_start(clip.key, job.epoch, self.turns)
        try:
            path = self.cache.path(clip, job.window, start)
            if path is None:  # drawn from nothing
                found.there = True
                return found
            try:
                found.there = self.cache.files.read(path) is not None
            except DamagedFile:
                found.damaged = True
            if not found.there and not check:
                path.unlink(missing_ok=True)
                found.example = read_example(clip, job.window, start, self.cache)
        except TimeloomError as error:
            found.broken = str(error).removeprefix(f"{clip.origin}: ")
        return found


class _Reader(Dataset[Found]):
    def __init__(self, windows: Windows, check: bool) -> None:
        self.windows, self.check = windows, check

    def __getitem__(self, job: Job) -> Found:
        return self.windows.look(job, self.check)


def open_windows(recipe: Recipe, encoder: Encoder) -> tuple[Windows, list[str]]:
    """The windows of a recipe, and lines that say what was found."""
    data = recipe.data
    assert encoder.latent_cache is not None and data.windows is not None
    training, held_out = open_sources(data, recipe.seed)
    order = Order(training, data.window, recipe.seed, recipe.schedule.batch_size, sizes=data.sizes)
    windows = Windows(training, held_out, order, data.window, data.windows, encoder.latent_cache)
    return windows, describe_sources(data, training, held_out)
