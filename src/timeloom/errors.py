"""Errors that speak to the user: one sentence that says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TimeloomError(Exception):
    """Bad input. The command line prints its message alone, without a traceback, and exits with code 2."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> TimeloomError:
    """An error for a `name` that is none of the `known` ones, suggesting the nearest.

    `kind` says what the name was meant to be ("recipe", "scheduler", ...).
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return TimeloomError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
