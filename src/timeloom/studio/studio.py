"""The studio: what the page offers and does, without a word about how it is drawn."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timeloom.errors import TimeloomError
from timeloom.studio.browse import Shelf
from timeloom.studio.jobs import Engine, Worker
from timeloom.studio.request import Limits, read_comparison, read_request
from timeloom.studio.session import Session, Sessions

ANY_SEED = 2**31
"""Seeds that are drawn are below this: short enough to be typed again."""


class Studio:
    """One engine, one queue, the visitors and the folders to browse.

    Args:
        engine: makes the clips.
        models: names that visitors may choose from; the first is the default.
        limits: of what they may ask for.
        folders: {name: folder} to browse.
    """

    def __init__(self, engine: Engine, models: list[str], limits: Limits, folders: Mapping[str, Path]) -> None:
        self.models = models
        self.limits = limits
        self.shelf = Shelf(folders)
        self.worker = Worker(engine, limits.max_waiting)
        self.sessions = Sessions(self.worker, limits)
        self._engine = engine
        self._visited = threading.Event()

    def visit(self, word: str | None) -> Session:
        """The visitor of a cookie's word. The first visit loads the first model, so that a first clip need not wait.

        Raises:
            TimeloomError: there is no such visitor, or no longer.
        """
        session = self.sessions.find(word)
        if session is None:
            raise TimeloomError("This page is too old, or cookies are off: load it again.")
        if not self._visited.is_set():
            self._visited.set()
            threading.Thread(target=self._engine.prepare, args=(self.models[0],), daemon=True).start()
        return session

    def generate(self, session: Session, values: Mapping[str, Any]) -> None:
        """Ask for one clip from the values of the form; a blank seed is drawn. Raises TimeloomError."""
        if values.get("seed") in (None, ""):
            values = {**values, "seed": secrets.randbelow(ANY_SEED)}
        session.generate(read_request(values, self.models, self.limits))

    def again(self, session: Session, token: str) -> None:
        """Ask for a clip of the history once more, with another seed. Raises TimeloomError."""
        if (job := session.find(token)) is not None:
            session.generate(job.request.with_seed(secrets.randbelow(ANY_SEED)))

    def compare(self, session: Session, values: Mapping[str, Any]) -> None:
        """Ask for a comparison from the values of its form. Raises TimeloomError."""
        session.compare(read_comparison(values, self.models, self.limits))

    def close(self) -> None:
        """End everything, and remove what was made."""
        self.worker.close()
        self.sessions.close()
