"""Captions: a CSV or a JSONL that lists files, or a `.txt` of the same name beside the video.

file,caption                       {"file": "cats/1.mp4", "caption": "A cat jumps."}
cats/1.mp4,"A cat jumps."
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timeloom.errors import TimeloomError

FILE_KEYS = ("file", "path", "video", "file_name")  # the first that is there counts
CAPTION_KEYS = ("caption", "text", "name")


@dataclass(frozen=True)
class Caption:
    """One line of a caption file."""

    file: str
    """As written; relative to the folder of the videos."""
    text: str
    """Without white space around it; may be empty."""
    line: int
    """Where it stands, counted from 1."""


def read_captions(path: str | os.PathLike[str]) -> list[Caption]:
    """Read a caption file in its order. Columns go by name (see FILE_KEYS, CAPTION_KEYS), in any order and case.

    Raises: TimeloomError naming the file, and the line where there is one, for a missing file, an unknown suffix, text
    that is not UTF-8, missing columns and lines that do not parse.
    """
    path = Path(path)
    read = {".csv": _csv_rows, ".jsonl": _jsonl_rows}.get(path.suffix.lower())
    if read is None:
        raise TimeloomError(f"{path}: captions are read from .csv and .jsonl files only.")
    captions = []
    for line, row in read(path, read_text(path)):
        file, text = _value(path, line, row, FILE_KEYS), _value(path, line, row, CAPTION_KEYS)
        if not file:
            raise TimeloomError(f"{path}, line {line}: names no file.")
        captions.append(Caption(file, text, line))
    return captions


def read_sidecar(video: Path) -> str | None:
    """The caption in the `.txt` beside `video`, white space at the ends removed; None without such a file.

    Raises: TimeloomError naming the .txt where it is not UTF-8.
    """
    path = video.with_suffix(".txt")
    return read_text(path).strip() if path.is_file() else None


def read_text(path: Path) -> str:
    """A UTF-8 text, with or without byte order mark. Raises TimeloomError naming file and line where it is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TimeloomError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TimeloomError(f"{path}, line {line}: is not UTF-8 text; save it as UTF-8.") from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not header:
            raise TimeloomError(f"{path}: is empty; its first line must name the columns, such as file,caption.")
        for keys in (FILE_KEYS, CAPTION_KEYS):
            if not set(keys) & set(header):
                raise TimeloomError(f"{path}, line 1: has no column {' or '.join(keys)}; it has {', '.join(header)}.")
        before = reader.line_num
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise TimeloomError(f"{path}, line {line}: has {len(cells)} cells for {len(header)} columns.")
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise TimeloomError(f"{path}, line {reader.line_num}: is not CSV ({error}).") from error


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            raise TimeloomError(f"{path}, line {line}: is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise TimeloomError(f"{path}, line {line}: must be an object with file and caption.")
        yield line, row


def _value(path: Path, line: int, row: dict[str, object], keys: tuple[str, ...]) -> str:
    key = next((key for key in keys if key in row), None)
    if key is None:
        raise TimeloomError(f"{path}, line {line}: has no {' or '.join(keys)}; it has {', '.join(row) or 'nothing'}.")
    value = row[key]
    if not isinstance(value, str):
        raise TimeloomError(f"{path}, line {line}: {key} must be text, not {value!r}.")
    return value.strip()
