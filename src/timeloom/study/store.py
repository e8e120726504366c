"""Raters, what they were given, and their votes: SQLite with a write-ahead log, acknowledged only when on the disk.

    with Store(folder, study) as store:
        state = store.do(lambda desk: desk.visit(token, browser)).result()

One thread writes. It takes all that waits, carries it out in one transaction, and answers after the commit: a disk that
takes 10 ms to be sure takes them once for fifty raters.
"""

from __future__ import annotations

import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from timeloom.errors import TimeloomError
from timeloom.study.design import VOTES, Study
from timeloom.study.desk import Desk, Refused

Answer = TypeVar("Answer")
MOST_AT_ONCE = 200
MOST_WAITING = 5000
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
    rater INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL, code TEXT NOT NULL, browser TEXT,
    machines INTEGER NOT NULL DEFAULT 0, finished INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY, rater INTEGER NOT NULL, pair INTEGER NOT NULL, flipped INTEGER NOT NULL,
    place INTEGER NOT NULL, given_at REAL NOT NULL, held_until REAL,
    done INTEGER NOT NULL DEFAULT 0, UNIQUE (rater, pair));
CREATE INDEX IF NOT EXISTS held ON tasks (held_until) WHERE held_until IS NOT NULL;
CREATE TABLE IF NOT EXISTS pairs (
    pair INTEGER PRIMARY KEY, taken INTEGER NOT NULL DEFAULT 0, given INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS votes (
    task TEXT NOT NULL, question INTEGER NOT NULL, choice TEXT NOT NULL, milliseconds INTEGER NOT NULL,
    received_at REAL NOT NULL, PRIMARY KEY (task, question)) WITHOUT ROWID;
"""


class Store:
    """The votes of a study. Closed, it has written everything that it acknowledged; killed, too.

    Raises:
        TimeloomError: the file cannot be opened, or the study was changed after votes had been given.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.path = folder / VOTES
        self._waiting: queue.Queue[tuple[Callable[[Desk], Any], Future[Any]] | None] = queue.Queue(MOST_WAITING)
        self._connection = open_votes(self.path, study)
        self._desk = Desk(self._connection, study)
        self._thread = threading.Thread(target=self._serve, name="votes", daemon=True)
        self._thread.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._connection.close()

    def do(self, action: Callable[[Desk], Answer]) -> Future[Answer]:
        """Carry out `action`; the future has its answer when all that it wrote is on the disk.

        The future raises what `action` raises (`Refused`), and then nothing of it is written; so for a full disk.
        """
        future: Future[Answer] = Future()
        try:
            self._waiting.put_nowait((action, future))
        except queue.Full:
            future.set_exception(Refused(503, "Too many answers at once; yours is kept here and sent again."))
        return future

    def _serve(self) -> None:
        stopped = False
        while not stopped:
            batch = [self._waiting.get()]
            while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get())
            stopped = None in batch
            self._carry_out([item for item in batch if item is not None])

    def _carry_out(self, batch: list[tuple[Callable[[Desk], Any], Future[Any]]]) -> None:
        """All actions in one transaction. One that fails is undone alone; the disk refuses one, it refuses all."""
        answers: list[Any] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for action, _ in batch:
                self._connection.execute("SAVEPOINT action")
                try:
                    answers.append(action(self._desk))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    self._connection.execute("ROLLBACK TO action")
                    answers.append(error)
                self._connection.execute("RELEASE action")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            full = "full" in str(error)
            said = "The study's disk is full" if full else "The study cannot store answers at the moment"
            refused = Refused(507 if full else 503, f"{said}; your answer is kept here and sent again.")
            answers = [refused] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def open_votes(path: Path, study: Study) -> sqlite3.Connection:
    """Open the votes of `study`: with a write-ahead log, and a commit that ends when the disk has it.

    Raises:
        TimeloomError: the file cannot be opened, or the study was changed after votes had been given.
    """
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        _adopt(connection, study, path.parent)
        connection.execute("COMMIT")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise TimeloomError(f"{path}: cannot be used ({error}).") from error
        raise
    return connection


def count_votes(folder: Path) -> int:
    """How many votes the study in `folder` has. Raises TimeloomError where they cannot be read."""
    path = folder / VOTES
    if not path.is_file():
        return 0
    try:
        connection = sqlite3.connect(path)
        try:
            return int(connection.execute("SELECT count(*) FROM votes").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return 0
        raise TimeloomError(f"{path}: cannot be read ({error}).") from error
    except sqlite3.DatabaseError as error:
        raise TimeloomError(f"{path}: cannot be read ({error}).") from error


def _adopt(connection: sqlite3.Connection, study: Study, folder: Path) -> None:
    """Tie the votes to the study. One that was changed before any vote starts anew; with votes it is refused."""
    known = connection.execute("SELECT value FROM facts WHERE name = 'study'").fetchone()
    if known is not None and known[0] != study.fingerprint:
        votes = connection.execute("SELECT count(*) FROM votes").fetchone()[0]
        if votes:
            raise TimeloomError(
                f"{folder}: the study was changed after {votes} votes had been given, which would count for something "
                "else. Put study.json back as it was, or make the changed study under another name."
            )
        for table in ("raters", "tasks", "pairs", "facts"):
            connection.execute(f"DELETE FROM {table}")
        known = None
    if known is None:
        connection.execute("INSERT INTO facts VALUES ('study', ?)", (study.fingerprint,))
        raters = [(secrets.token_urlsafe(16), secrets.token_hex(5).upper()) for _ in range(study.links)]
        connection.executemany("INSERT INTO raters (token, code) VALUES (?, ?)", raters)
        connection.executemany("INSERT INTO pairs (pair) VALUES (?)", [(pair,) for pair in range(len(study.pairs))])
        connection.execute("INSERT INTO facts VALUES ('made_at', ?)", (str(time.time()),))
