"""Frames of a video as a protocol sees them, read in processes of their own so that the network never waits."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from timeloom.data.clip import Frames
from timeloom.data.video import probe_video, read_video
from timeloom.errors import TimeloomError
from timeloom.evaluate.content_hash import content_hash

Key = TypeVar("Key")


@dataclass(frozen=True)
class ReadWindow:
    """Reads one window of a file, uint8 (F, H, W, 3). What it takes decides features: it is part of their name."""

    num_frames: int
    fps: float | None
    """None takes the file's own frames."""
    height: int | None
    width: int | None
    place: Literal["start", "middle", "random"] = "start"
    seed: int = 0
    """Of a random place, which also depends on what the file holds, so not on its name."""

    def __call__(self, path: Path) -> Frames:
        """Raises TimeloomError, naming the file, where it cannot be read or ends before the window does."""
        return read_video(path, self.num_frames, self.fps, self._start_s(path), self.height, self.width)

    def _start_s(self, path: Path) -> float:
        if self.place == "start":
            return 0.0
        info = probe_video(path)
        room_s = max(0.0, info.duration_s - self.num_frames / (self.fps or info.fps))
        if self.place == "middle":
            return room_s / 2
        draw = hashlib.blake2b(f"{self.seed} {content_hash(path)}".encode(), digest_size=8).digest()
        return room_s * int.from_bytes(draw, "little") / 2**64


def read_ahead(
    items: Iterable[tuple[Key, Path]], read: Callable[[Path], Frames], workers: int, ahead: int
) -> Iterator[tuple[Key, Frames | TimeloomError]]:
    """What `read` gives, or raises as TimeloomError, for each item in turn.

    Args:
        items: (key, file); taken one after the other as they are needed.
        read: can be pickled where there are workers.
        workers: processes that read; 0 reads here.
        ahead: items that may be read before they are asked for, so the most that is in memory.

    Raises:
        TimeloomError: a process has died.
    """
    if not workers:
        for key, path in items:
            yield key, _attempt(read, path)
        return
    # Not forked: a process with threads, as torch has them, must not be.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts)
    waiting: deque[tuple[Key, Future[Frames | TimeloomError]]] = deque()
    try:
        for key, path in items:
            waiting.append((key, pool.submit(_attempt, read, path)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise TimeloomError(
            "A process that decodes videos was ended from outside, mostly for want of memory. Try fewer --workers; "
            "what was computed is kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(read: Callable[[Path], Frames], path: Path) -> Frames | TimeloomError:
    try:
        return read(path)
    except TimeloomError as error:
        return TimeloomError(str(error))  # subclasses may not cross to another process


def _ignore_interrupts() -> None:
    """Ctrl-C ends the command, which ends its processes; they need not say so too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
