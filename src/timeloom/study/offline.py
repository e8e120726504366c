"""A study without our server: a folder for any web server, and the files with votes that come back from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from timeloom.data.json_file import read_json
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.schema import Schema, check
from timeloom.study.design import MEDIA, Study
from timeloom.study.desk import Choice, Desk, Refused
from timeloom.study.page import greeting, page, rater_name
from timeloom.study.store import Store

LARGEST_FILE = 8 << 20


class Vote(Schema):
    """One vote as the page saves it."""

    task: str
    question: int
    choice: Choice
    milliseconds: int = Field(ge=0, le=86_400_000)


class Returned(Schema):
    """A file of votes that a rater sends back."""

    study: str
    rater: str
    votes: tuple[Vote, ...]


def write_folder(folder: Path, study: Study, store: Store, output: Path) -> None:
    """Write page, clips and each rater's pairs into `output`. The pairs of all raters are drawn now, and stay theirs.

    Raises:
        TimeloomError: `output` exists and is not empty, or the disk refuses.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TimeloomError(f"{output}: exists and is not empty; give another folder.")
    try:
        shutil.copytree(folder / MEDIA, output / MEDIA, copy_function=shutil.copy2)
    except (OSError, shutil.Error) as error:
        raise TimeloomError(f"{output}: cannot be written ({error}).") from error
    for number, token, code in store.do(Desk.links).result():
        tasks = store.do(partial(_give_all, token)).result()
        content: dict[str, Any] = {
            **greeting(study),
            "study": study.fingerprint,
            "number": rater_name(number),
            "code": code,
        }
        content["tasks"] = [{name: value for name, value in task.items() if name != "answered"} for task in tasks]
        replace_file(output / "raters" / f"{token}.json", json.dumps(content, ensure_ascii=False).encode())
    replace_file(output / "index.html", page("folder").encode())


def _give_all(token: str, desk: Desk) -> list[dict[str, Any]]:
    return desk.give_all(token)


@dataclass(frozen=True)
class Added:
    """What became of files of votes."""

    votes: int
    """New ones."""
    known: int
    """Those that were there already."""
    refused: list[str]
    """A sentence for each vote or file that is not this study's."""


def add_votes(files: Sequence[Path], study: Study, store: Store) -> Added:
    """Store the votes in `files` (folders stand for their .json files). A vote counts once, however often it comes.

    Raises:
        TimeloomError: a path does not exist.
    """
    added, known, refused = 0, 0, []
    for path in _expand(files):
        try:
            returned = _read(path)
        except TimeloomError as error:
            refused.append(str(error))
            continue
        if returned.study != study.fingerprint:
            refused.append(f"{path}: is about another study, or an earlier version of this one.")
            continue
        for number, vote in enumerate(returned.votes):
            try:
                new = store.do(partial(_record, returned.rater, vote)).result()
            except Refused as error:
                if error.status >= 500:
                    raise TimeloomError(f"{store.path}: {error.sentence}") from error
                refused.append(f"{path}: vote {number} is refused: {error.sentence}")
            else:
                added, known = added + new, known + (not new)
    return Added(added, known, refused)


def _record(rater: str, vote: Vote, desk: Desk) -> bool:
    return desk.record(rater, vote.task, vote.question, vote.choice, vote.milliseconds)


def _expand(files: Sequence[Path]) -> list[Path]:
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise TimeloomError(f"There is no such file of votes: {', '.join(missing)}.")
    return [one for path in files for one in (sorted(path.glob("*.json")) if path.is_dir() else [path])]


def _read(path: Path) -> Returned:
    if path.stat().st_size > LARGEST_FILE:
        raise TimeloomError(f"{path}: is larger than any file of votes.")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise TimeloomError(f"{path}: is no file of votes.")
    return check(Returned, raw, path)
