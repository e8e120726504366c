"""Annotation files in JSON, whole or one member at a time, and the clock times that stand in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timeloom.data.captions import read_text
from timeloom.errors import TimeloomError

BLOCK_CHARACTERS = 1 << 24
_CLOCK = re.compile(r"\s*(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\s*")


def annotation_files(path: Path, suffix: str) -> list[Path]:
    """`path`, or the files of that suffix in the folder `path`, by name. Raises TimeloomError where there is none."""
    if path.is_file():
        return [path]
    found = sorted(path.glob(f"*{suffix}"))
    if not found:
        raise TimeloomError(f"{path}: there is no such file, and no folder of {suffix} files.")
    return found


def read_json(path: Path) -> Any:
    """A JSON file. Raises: TimeloomError naming it where it is missing, not UTF-8 or no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise TimeloomError(f"{path}: is not JSON ({error}).") from error


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of the object that a JSON file holds, one after the other: files of many GiB need little memory.

    Raises: TimeloomError, naming the file, where it is missing, not UTF-8 or no JSON object.
    """
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(BLOCK_CHARACTERS).lstrip()
            if text[:1] != "{":
                raise TimeloomError(f"{path}: a JSON object is expected here.")
            place = 1
            while True:
                try:
                    place = _skip(text, place, " \t\r\n,")
                    if text[place] == "}":
                        return
                    key, after = decoder.raw_decode(text, place)
                    after = _skip(text, after, " \t\r\n")
                    if text[after] != ":":
                        raise json.JSONDecodeError("Expecting ':' delimiter", text, after)
                    value, after = decoder.raw_decode(text, _skip(text, after + 1, " \t\r\n"))
                    if text[_skip(text, after, " \t\r\n")] not in ",}":  # the block's end may have cut a number
                        raise json.JSONDecodeError("Expecting ',' delimiter", text, after)
                except (IndexError, json.JSONDecodeError):
                    more = file.read(max(BLOCK_CHARACTERS, len(text) - place))
                    if not more:
                        raise
                    text, place = text[place:] + more, 0
                    continue
                yield str(key), value
                place = after
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError, RecursionError) as error:
        reason = "it is cut short" if isinstance(error, IndexError) else error
        raise TimeloomError(f"{path}: is not JSON ({reason}).") from error


def _skip(text: str, place: int, characters: str) -> int:
    while text[place] in characters:
        place += 1
    return place


def seconds(clock: object) -> float:
    """ "1:02:03.5" or "02:03.5" in seconds. Raises: ValueError for anything else."""
    match = _CLOCK.fullmatch(clock) if isinstance(clock, str) else None
    if match is None:
        raise ValueError(f"{clock!r} is no time")
    hours, minutes, rest = match.groups()
    try:
        return float(int(hours or 0) * 3600 + int(minutes) * 60) + float(rest)
    except OverflowError as error:
        raise ValueError("a time beyond all videos") from error
