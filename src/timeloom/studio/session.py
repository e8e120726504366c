"""Visitors, and what each of them has: clips in the making, a history, a comparison. Nobody sees another's.

A visitor is a random word in a cookie. The clips of a visitor lie in one folder that ends with the program; each is
known by a token that cannot be guessed, and is given only to the visitor whose it is.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from timeloom.errors import TimeloomError
from timeloom.studio.jobs import Job, Worker
from timeloom.studio.request import ClipRequest, Limits

HISTORY = 24
"""Clips that a visitor's history keeps; the oldest go."""
VISITORS = 256
"""At once; who has been away longest goes."""


class Rate:
    """At most `count` events in any `period_s` seconds."""

    def __init__(self, count: int, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._period_s, self._clock = count, period_s, clock
        self._times: deque[float] = deque()

    def admits(self, events: int = 1) -> bool:
        """Whether so many more fit now; they count if they do."""
        if self.room < events:
            return False
        self._times += [self._clock()] * events
        return True

    @property
    def room(self) -> int:
        """How many more would fit now."""
        while self._times and self._times[0] <= self._clock() - self._period_s:
            self._times.popleft()
        return self._count - len(self._times)


class Session:
    """One visitor."""

    def __init__(self, folder: Path, worker: Worker, limits: Limits) -> None:
        self.id = secrets.token_urlsafe(24)
        self.history: list[Job] = []
        """Clips of the first page, the newest first; at most HISTORY that have ended, and those on their way."""
        self.comparison: list[Job] = []
        self.seen = time.monotonic()
        self._folder = folder / secrets.token_hex(12)  # made by the first clip: a full disk keeps no visitor out
        self._worker = worker
        self._limits = limits
        self._rate = Rate(limits.max_per_minute, 60)
        self._lock = threading.RLock()

    def generate(self, request: ClipRequest) -> Job:
        """Ask for one clip. Raises TimeloomError where the queue is full, or this visitor asks too often."""
        with self._lock:
            [job] = self._submit([("", request)])
            self.history.insert(0, job)
            self._forget([old for old in self.history if old.ended][HISTORY:])
            return job

    def compare(self, requests: list[tuple[str, ClipRequest]]) -> list[Job]:
        """Ask for several clips in place of the comparison before. Raises as `generate`."""
        with self._lock:
            jobs = self._submit(requests)
            old, self.comparison = self.comparison, jobs
            self._forget(old)
            return jobs

    def cancel(self, jobs: list[Job]) -> None:
        """End those that have not ended."""
        for job in jobs:
            if not job.ended:
                self._worker.cancel(job)

    def remove(self, token: str) -> None:
        """Take a clip out of the history, and its file away."""
        with self._lock:
            self._forget([job for job in self.history if job.token == token])

    def find(self, token: str) -> Job | None:
        """The visitor's own clip of this token; None where there is none, or it is another's."""
        with self._lock:
            return next((job for job in (*self.history, *self.comparison) if job.token == token), None)

    def ahead_of(self, job: Job) -> int:
        """See `Worker.ahead_of`."""
        return self._worker.ahead_of(job)

    @property
    def busy(self) -> bool:
        """Whether anything is on its way."""
        return any(not job.ended for job in (*self.history, *self.comparison))

    def close(self) -> None:
        """End everything, and remove the files."""
        with self._lock:
            self._forget([*self.history, *self.comparison])
            shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self, requests: list[tuple[str, ClipRequest]]) -> list[Job]:
        if not self._rate.admits(len(requests)):
            raise TimeloomError(f"At most {self._limits.max_per_minute} clips a minute: wait a little.")
        jobs = [Job(request, self.id, self._folder, label) for label, request in requests]
        self._worker.submit(jobs)
        return jobs

    def _forget(self, jobs: list[Job]) -> None:
        self.cancel(jobs)
        self.history = [job for job in self.history if job not in jobs]
        self.comparison = [job for job in self.comparison if job not in jobs]
        for job in jobs:
            if job.clip is not None:
                job.clip.file.unlink(missing_ok=True)


class Sessions:
    """All visitors, in a folder that is removed at the end."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self._worker, self._limits = worker, limits
        self._folder = tempfile.TemporaryDirectory(prefix="timeloom-studio-", ignore_cleanup_errors=True)
        self._by_id: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self) -> Session:
        """A new visitor; with VISITORS there already, the one who has been away longest goes, if not at work."""
        with self._lock:
            while len(self._by_id) >= VISITORS:
                away = min(self._by_id.values(), key=lambda session: (session.busy, session.seen))
                self._by_id.pop(away.id).close()
            session = Session(Path(self._folder.name), self._worker, self._limits)
            self._by_id[session.id] = session
            return session

    def find(self, word: str | None) -> Session | None:
        """The visitor of a cookie's word; None where there is none."""
        with self._lock:
            session = self._by_id.get(word or "")
            if session is not None:
                session.seen = time.monotonic()
            return session

    def __len__(self) -> int:
        return len(self._by_id)

    def close(self) -> None:
        """End everything and remove all files."""
        with self._lock:
            for session in self._by_id.values():
                session.close()
            self._by_id.clear()
            self._folder.cleanup()
