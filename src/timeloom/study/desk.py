"""What a rater can do: come, be given a pair that still needs votes, and vote. Each is part of a transaction."""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Literal

from timeloom.study.design import Study

Choice = Literal["left", "right", "none"]
CHOICES: tuple[Choice, ...] = ("left", "right", "none")
HELD_S = 900.0
"""So long a pair that was given to a rater is kept for them; then others get it as well."""
AHEAD = 2
"""Pairs given at once, so that the next one loads while one is judged."""
FOR_EVER = 1e12
PRIME = 1_000_003
ELSEWHERE = "This link is open in another browser. Every answer given there is kept."


class Refused(Exception):
    """What a rater asked is not done: an HTTP status, and the sentence that they read."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Desk:
    """Works on the tables of `store.SCHEMA`. `clock` gives seconds since 1970."""

    def __init__(self, connection: sqlite3.Connection, study: Study, clock: Callable[[], float] = time.time) -> None:
        self.connection, self.study, self.clock = connection, study, clock
        self._checks = [number for number, pair in enumerate(study.pairs) if pair.attention]
        self._most = study.pairs_per_rater + study.attention_per_rater

    def visit(self, token: str, browser: str, take_over: bool = False) -> dict[str, Any]:
        """What the rater sees next. The first browser that comes has the link, until another takes over.

        Raises:
            Refused: no such link (404), or it is open in another browser (409).
        """
        rater = self._rater(token)
        if rater["browser"] not in (None, browser) and not take_over:
            raise Refused(409, ELSEWHERE)
        if rater["browser"] != browser:
            self.connection.execute(
                "UPDATE raters SET browser = ?, machines = machines + 1 WHERE rater = ?", (browser, rater["rater"])
            )
        return self._state(rater)

    def vote(
        self, token: str, browser: str, task: str, question: int, choice: Choice, milliseconds: int
    ) -> dict[str, Any]:
        """Store a vote and tell what comes next. Raises Refused as `record` does, or for another browser (409)."""
        rater = self._rater(token)
        if rater["browser"] != browser:
            raise Refused(409, ELSEWHERE)
        self.record(token, task, question, choice, milliseconds)
        return self._state(rater)

    def record(self, token: str, task: str, question: int, choice: Choice, milliseconds: int) -> bool:
        """Store a vote. The same again, or another one on the same question, changes nothing: the first one counts.

        Returns: whether it is new.
        Raises:
            Refused: no such link (404), or a pair that this rater was not given, or no such answer (403).
        """
        rater = self._rater(token)["rater"]
        given = self.connection.execute("SELECT * FROM tasks WHERE task = ? AND rater = ?", (task, rater)).fetchone()
        if given is None or choice not in CHOICES or not 0 <= question < len(self.study.questions):
            raise Refused(403, "This answer belongs to no pair that you were given. Please reload the page.")
        now = self.clock()
        if given["held_until"] != FOR_EVER:  # else given long before it was seen, and answered long before it came
            milliseconds = min(milliseconds, round(1000 * (now - given["given_at"])))
        stored = self.connection.execute(
            "INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?)", (task, question, choice, max(0, milliseconds), now)
        )
        if stored.rowcount:
            self._close_if_complete(given)
        return stored.rowcount > 0

    def give_all(self, token: str) -> list[dict[str, Any]]:
        """Give the rater all pairs that they will see, and keep them for ever: for a study without this server."""
        rater = self._rater(token)
        while self._give(rater["rater"], held_until=FOR_EVER):
            pass
        return [self._describe(task) for task in self._tasks(rater["rater"])]

    def links(self) -> list[tuple[int, str, str]]:
        """(number, token, completion code) of every rater."""
        return [tuple(row) for row in self.connection.execute("SELECT rater, token, code FROM raters ORDER BY rater")]

    def _rater(self, token: str) -> sqlite3.Row:
        rater = self.connection.execute("SELECT * FROM raters WHERE token = ?", (token,)).fetchone()
        if rater is None:
            raise Refused(404, "This link belongs to no rater of the study. Please check that it was copied whole.")
        return rater

    def _state(self, rater: sqlite3.Row) -> dict[str, Any]:
        number = rater["rater"]
        tasks = [self._describe(task) for task in self._tasks(number, "AND done = 0")]
        while len(tasks) < AHEAD and not rater["finished"] and (task := self._give(number, self.clock() + HELD_S)):
            tasks.append(self._describe(task))
        done = self.connection.execute("SELECT count(*) FROM tasks WHERE rater = ? AND done = 1", (number,)).fetchone()[
            0
        ]
        if done and not tasks:  # finished for good: whoever has their code is not asked for more
            self.connection.execute("UPDATE raters SET finished = 1 WHERE rater = ?", (number,))
        total = self._most if len(tasks) == AHEAD else done + len(tasks)
        return {"done": done, "total": total, "tasks": tasks, "code": rater["code"] if done and not tasks else None}

    def _tasks(self, rater: int, further: str = "") -> list[sqlite3.Row]:
        return self.connection.execute(
            f"SELECT * FROM tasks WHERE rater = ? {further} ORDER BY place", (rater,)
        ).fetchall()

    def _describe(self, task: sqlite3.Row) -> dict[str, Any]:
        """What the browser learns of a pair: nothing that tells a system, or an attention pair, from another."""
        pair = self.study.pairs[task["pair"]]
        left, right = reversed(pair.clips) if task["flipped"] else pair.clips
        shown = any(question.show_prompt for question in self.study.questions)
        answered = self.connection.execute("SELECT question FROM votes WHERE task = ?", (task["task"],))
        return {
            "task": task["task"],
            "left": f"media/{left}.mp4",
            "right": f"media/{right}.mp4",
            "prompt": self.study.prompts[pair.prompt] if shown else None,
            "answered": [row["question"] for row in answered],
        }

    def _give(self, rater: int, held_until: float) -> sqlite3.Row | None:
        """Give the rater one more pair; None where they have had enough, or no pair needs votes."""
        place = self.connection.execute("SELECT count(*) FROM tasks WHERE rater = ?", (rater,)).fetchone()[0]
        if place >= self._most:
            return None
        pair = self._attention_at(rater, place)
        if pair is None:
            pair = self._neediest(rater, place)
        if pair is None:
            return None
        given = self.connection.execute(
            "UPDATE pairs SET taken = taken + 1, given = given + 1 WHERE pair = ? RETURNING given", (pair,)
        ).fetchone()["given"]
        # Sides alternate from a side drawn by the seed: each system is on the left for half of a pair's raters.
        flipped = (random.Random(f"{self.study.seed} side {pair}").getrandbits(1) + given) % 2
        return self.connection.execute(
            "INSERT INTO tasks (task, rater, pair, flipped, place, given_at, held_until) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING *",
            (secrets.token_urlsafe(9), rater, pair, flipped, place, self.clock(), held_until),
        ).fetchone()

    def _attention_at(self, rater: int, place: int) -> int | None:
        """The attention pair at this place, if one belongs there: never the first, else spread by the seed."""
        choice = random.Random(f"{self.study.seed} attention {rater}")
        places = choice.sample(range(min(1, self._most - len(self._checks)), self._most), len(self._checks))
        checks = choice.sample(self._checks, len(self._checks))
        return dict(zip(places, checks, strict=True)).get(place)

    def _neediest(self, rater: int, place: int) -> int | None:
        """The pair with the fewest votes, given or expected, that this rater has not had; among equals by the seed."""
        self._release()
        mixer = random.Random(f"{self.study.seed} order {rater} {place}").randrange(1, PRIME)
        row = self.connection.execute(
            "SELECT pair FROM pairs WHERE taken < ? AND pair < ? "
            "AND pair NOT IN (SELECT pair FROM tasks WHERE rater = ?) ORDER BY taken, (pair + 1) * ? % ? LIMIT 1",
            (self.study.raters_per_pair, len(self.study.pairs) - len(self._checks), rater, mixer, PRIME),
        ).fetchone()
        return None if row is None else int(row["pair"])

    def _release(self) -> None:
        """Take pairs back from raters who did not come back in time; their answers still count if they do."""
        late = self.connection.execute("SELECT task, pair FROM tasks WHERE held_until < ?", (self.clock(),)).fetchall()
        for task in late:
            self.connection.execute("UPDATE tasks SET held_until = NULL WHERE task = ?", (task["task"],))
            self.connection.execute("UPDATE pairs SET taken = taken - 1 WHERE pair = ?", (task["pair"],))

    def _close_if_complete(self, task: sqlite3.Row) -> None:
        count = self.connection.execute("SELECT count(*) FROM votes WHERE task = ?", (task["task"],)).fetchone()[0]
        if count == len(self.study.questions):
            if task["held_until"] is None:  # it had been taken back
                self.connection.execute("UPDATE pairs SET taken = taken + 1 WHERE pair = ?", (task["pair"],))
            self.connection.execute("UPDATE tasks SET done = 1, held_until = NULL WHERE task = ?", (task["task"],))
