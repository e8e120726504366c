"""Clips in the making: a bounded queue, and one thread that makes them one after another with one engine.

Visitors take turns: the next clip is the oldest of someone who was not served last, where there is one.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from timeloom.data.clip import Frames
from timeloom.errors import TimeloomError
from timeloom.studio.request import ClipRequest

PREVIEW_EVERY_S = 0.4
ENDED = ("done", "failed", "cancelled")

logger = logging.getLogger(__name__)


class Cancelled(Exception):
    """A visitor no longer wants the clip."""


OnStep = Callable[[int, int, Callable[[], Frames]], None]
"""Called after each step with how many are done, how many there are, and a function that shows one frame (H, W, 3)."""


class Engine(Protocol):
    """Makes clips, one at a time; see `engine.ModelEngine`."""

    def prepare(self, model: str) -> None:
        """Get ready for a first clip of this model; says nothing of problems."""
        ...

    def make(self, request: ClipRequest, folder: Path, token: str, on_step: OnStep) -> Clip:
        """Write one clip as a file in `folder`, its name beginning with `token`. What `on_step` raises ends it."""
        ...


@dataclass(frozen=True)
class Clip:
    """A finished clip."""

    file: Path
    settings: dict[str, str]
    """All that it was made with, defaults filled in."""
    width: int
    height: int
    seconds: float
    """That making it took."""


@dataclass(eq=False)
class Job:
    """One clip on its way. The worker's thread writes its fields, every other thread only reads them."""

    request: ClipRequest
    owner: str
    """Whose it is: visitors take turns."""
    folder: Path
    """Where its file goes."""
    label: str = ""
    """What tells it from others of its comparison."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    """Names it and its file; cannot be guessed."""
    state: str = "waiting"
    """waiting, running, done, failed or cancelled."""
    step: int = 0
    steps: int = 0
    preview: bytes = b""
    """A JPEG of the middle frame as it is now."""
    error: str = ""
    clip: Clip | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Worker:
    """The queue and the thread that empties it.

    Args:
        engine: makes the clips.
        max_waiting: clips that may wait.
    """

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        self._last_owner = ""
        self._closed = False
        self.running: Job | None = None
        self._thread = threading.Thread(target=self._work, name="studio worker", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Put all the jobs in the queue, or none. Raises TimeloomError where they do not fit."""
        with self._changed:
            if len(self._waiting) + len(jobs) > self._max_waiting:
                raise TimeloomError(
                    f"The queue is full ({len(self._waiting)} of {self._max_waiting} places taken). Try again later."
                )
            self._waiting += jobs
            self._changed.notify()

    def ahead_of(self, job: Job) -> int:
        """How many clips at most will be made before this one, which waits."""
        with self._changed:
            place = self._waiting.index(job) if job in self._waiting else 0
            return place + (self.running is not None)

    def cancel(self, job: Job) -> None:
        """End a job: at once where it waits, after the step at hand where it runs."""
        job.cancel.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"

    def close(self) -> None:
        """Make nothing more, and wait for the step at hand."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *([self.running] if self.running else [])]:
                job.cancel.set()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._changed:
                self.running = None

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            job = next((job for job in self._waiting if job.owner != self._last_owner), self._waiting[0])
            self._waiting.remove(job)
            self._last_owner, self.running = job.owner, job
            job.state = "running"
            return job

    def _run(self, job: Job) -> None:
        shown = 0.0

        def on_step(step: int, steps: int, look: Callable[[], Frames]) -> None:
            nonlocal shown
            if job.cancel.is_set():
                raise Cancelled
            if time.monotonic() - shown >= PREVIEW_EVERY_S:
                job.preview = as_jpeg(look())
                shown = time.monotonic()
            job.step, job.steps = step, steps

        try:
            clip = self._engine.make(job.request, job.folder, job.token, on_step)
            if job.cancel.is_set():  # too late for a step to notice
                clip.file.unlink(missing_ok=True)
                raise Cancelled
            job.clip, job.state = clip, "done"
        except Cancelled:
            job.state = "cancelled"
        except TimeloomError as error:
            job.error, job.state = str(error).replace(f"{job.folder}/", ""), "failed"
        except Exception:
            logger.exception("a clip could not be made: %s", job.request)
            job.error, job.state = "The clip could not be made; the studio's log says why.", "failed"
        job.preview = b""


def as_jpeg(frame: Frames) -> bytes:
    """A frame uint8 (H, W, 3), at most 384 pixels a side, for a quick look."""
    import io

    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((384, 384))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()
