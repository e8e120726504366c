"""CSV and JSONL files that list clips, of any size: columns by name, in any order and case.

file,caption,start_s,end_s                {"file": "cats/1.mp4", "caption": "A cat jumps.", "width": 640, "height": 360}
cats/1.mp4,"A cat jumps.",0.5,3.25

Files are relative to the folder of the videos. Rows that cannot be used are counted with their reason.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from timeloom.data.captions import CAPTION_KEYS, FILE_KEYS
from timeloom.data.clip import EXAMPLES, Ledger
from timeloom.data.table_builder import SECONDS, TEXT, TableBuilder, file_identity, kept_table
from timeloom.errors import TimeloomError

Names = Mapping[str, tuple[str, ...]]
"""Our column: the names that a file may give it; the first that is there counts."""

TEXTS: Names = {"file": FILE_KEYS, "caption": CAPTION_KEYS}
NUMBERS: Names = {
    "start_s": ("start_s", "start", "start_time"),
    "end_s": ("end_s", "end", "end_time"),
    "duration_s": ("duration_s", "duration"),
    "fps": ("fps", "frame_rate"),
    "width": ("width", "w"),
    "height": ("height", "h"),
}
NOT_UTF8 = "row that is not UTF-8 text"
MOST_LINES = 20  # of a row that is torn
BLOCK_BYTES = 1 << 24  # a row must fit into it
_NUMBER = r"^[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?$"


def read_csv_clips(path: Path) -> tuple[pa.Table, Ledger]:
    """A CSV of captioned files as a table of clips (see table.py), and a ledger of the rows refused.

    Raises: TimeloomError, naming the file, where it is missing, no CSV, or lacks a column.
    """
    table, ledger = read_csv(path, TEXTS, NUMBERS)
    for name in (column for column in table.column_names if column in NUMBERS):
        texts = pc.utf8_trim_whitespace(table[name])
        good = pc.or_(pc.equal(texts, ""), pc.match_substring_regex(texts, _NUMBER))
        table, texts = _refuse(table, ledger, good, f"row whose {name} is no number"), texts.filter(good)
        numbers = pc.if_else(pc.equal(texts, ""), pa.scalar(None, TEXT), texts).cast(SECONDS)
        table = table.set_column(table.column_names.index(name), name, numbers)
    return table, ledger


def read_csv(path: Path, required: Names, optional: Names) -> tuple[pa.Table, Ledger]:
    """The named columns of a CSV as text, and a ledger of rows that are torn or not UTF-8.

    Raises: TimeloomError, naming the file, where it is missing, no CSV, or lacks a required column.
    """
    columns = _choose_columns(path, _header(path), required, optional)
    ledger, endless = Ledger(), []

    def torn(row: pyarrow.csv.InvalidRow) -> str:
        if str(row.text).count("\n") > MOST_LINES:
            endless.append(str(row.text)[:80].splitlines()[0])
        ledger.found += 1
        ledger.drop(str(row.text)[:80], f"row of {row.actual_columns} cells for {row.expected_columns} columns")
        return "skip"

    try:
        raw = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=torn),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns.values()),
                column_types=dict.fromkeys(columns.values(), pa.large_binary()),
                check_utf8=False,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        first = str(error).splitlines()[0][:200]
        raise TimeloomError(f"{path}: is not CSV ({first}).") from error
    if endless:  # else one stray quote would hide all that follows as a single row
        raise TimeloomError(f"{path}: is not CSV; a quote is not closed in the row that begins with {endless[0]!r}.")
    raw = raw.rename_columns(list(columns))
    try:
        return raw.cast(pa.schema([(name, TEXT) for name in columns])), ledger
    except pa.ArrowInvalid:
        good = [all(_is_utf8(cell.as_py()) for cell in row) for row in zip(*raw.columns, strict=True)]
        ledger.found += good.count(False)
        rows = [f"{path.name}, row {place + 1}" for place, fine in enumerate(good) if not fine]
        ledger.drop_many(rows, NOT_UTF8, len(rows))
        return raw.filter(pa.array(good)).cast(pa.schema([(name, TEXT) for name in columns])), ledger


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError as error:
        raise TimeloomError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be read ({error.strerror}).") from error
    except csv.Error as error:
        raise TimeloomError(f"{path}, line 1: is not CSV ({error}).") from error
    if not header:
        raise TimeloomError(f"{path}: is empty; its first line must name the columns.")
    return header


def _choose_columns(path: Path, header: list[str], required: Names, optional: Names) -> dict[str, str]:
    """Our names of the columns that are there, and the file's own."""
    known = {name.strip().lower(): name for name in reversed(header)}
    chosen = {}
    for ours, names in {**required, **optional}.items():
        theirs = next((known[name.lower()] for name in names if name.lower() in known), None)
        if theirs is not None:
            if header.count(theirs) > 1:
                raise TimeloomError(f"{path}, line 1: has two columns {theirs}.")
            chosen[ours] = theirs
        elif ours in required:
            wanted = " or ".join(names)
            raise TimeloomError(f"{path}, line 1: has no column {wanted}; it has {', '.join(header)[:200]}.")
    return chosen


def _refuse(table: pa.Table, ledger: Ledger, good: pa.ChunkedArray, reason: str) -> pa.Table:
    """Keep the good rows, count the others."""
    wrong = np.flatnonzero(~good.to_numpy().astype(bool))
    if not len(wrong):
        return table
    ledger.found += len(wrong)
    first = table.column_names[0]
    ledger.drop_many((table[first][int(row)].as_py() for row in wrong[:EXAMPLES]), reason, len(wrong))
    return table.filter(good)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_jsonl_clips(path: Path) -> tuple[pa.Table, Ledger]:
    """A JSONL of captioned files as a table of clips (see table.py), and a ledger of the lines refused.

    Raises: TimeloomError, naming the file, where it is missing.
    """
    if not path.is_file():
        raise TimeloomError(f"{path}: there is no such file.")
    return kept_table(("jsonl", file_identity(path)), lambda: _read_jsonl(path))


def _read_jsonl(path: Path) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder({**dict.fromkeys(TEXTS, TEXT), **dict.fromkeys(NUMBERS, SECONDS)})
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            content = content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content
            if not content.strip():
                continue
            try:
                builder.add(**_clip_of(json.loads(content)))
            except UnicodeError:
                builder.refuse(f"{path.name}, line {line}", NOT_UTF8)
            except json.JSONDecodeError:
                builder.refuse(f"{path.name}, line {line}", "line that is not JSON")
            except (ValueError, RecursionError) as error:
                builder.refuse(f"{path.name}, line {line}", f"line with {error}")
    return builder.finish()


def _clip_of(row: Any) -> dict[str, Any]:
    """The cells of one line. Raises ValueError that says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError("something else than an object")
    row = {key.lower(): value for key, value in row.items()}
    cells: dict[str, Any] = {}
    for ours, names in {**TEXTS, **NUMBERS}.items():
        value = next((row[name] for name in names if name in row), None)
        if ours in TEXTS:
            if not isinstance(value, str):
                raise ValueError(f"no text for {' or '.join(names)}")
            value.encode()  # a lone surrogate is no text
        elif value is not None and (type(value) not in (int, float) or not 0 <= value < 1e15):
            raise ValueError(f"{ours} that is no number")
        cells[ours] = value
    return cells
