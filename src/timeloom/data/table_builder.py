"""Tables of clips: rows are collected into Arrow columns, and big tables are kept for the next time.

Ten million rows as Python dictionaries take several GiB and minutes; as Arrow columns they take what their text takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from timeloom.data.clip import Ledger
from timeloom.data.whole_file import whole_file

CHUNK_ROWS = 100_000
WORTH_KEEPING_ROWS = 50_000
FORMAT = 1  # of kept tables; another number makes them anew

TEXT, SECONDS, WHOLE = pa.large_string(), pa.float64(), pa.int64()


class TableBuilder:
    """Collects rows, a chunk at a time, and a ledger of those that were refused.

    The ledger's `found` counts the refused rows only; whoever uses the table counts its rows.
    """

    def __init__(self, columns: Mapping[str, pa.DataType]) -> None:
        self.schema = pa.schema(list(columns.items()))
        self.ledger = Ledger()
        self._batches: list[pa.RecordBatch] = []
        self._clear()

    def _clear(self) -> None:
        self._cells: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        self._rows = 0

    def add(self, **cells: Any) -> None:
        """One row: a value, or None, for each column."""
        for name, values in self._cells.items():
            values.append(cells[name])
        self._rows += 1
        if self._rows == CHUNK_ROWS:
            self._flush()

    def refuse(self, item: str, reason: str) -> None:
        """Count a row that is found and cannot be used."""
        self.ledger.found += 1
        self.ledger.drop(item, reason)

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pydict(self._cells, schema=self.schema))
        self._clear()

    def finish(self) -> tuple[pa.Table, Ledger]:
        """Everything that was added, and what was refused."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self.schema), self.ledger


def cache_folder() -> Path:
    """Where Timeloom keeps what it can make again: TIMELOOM_CACHE, or `timeloom` in the user's cache folder."""
    chosen = os.environ.get("TIMELOOM_CACHE")
    return Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timeloom")


def file_identity(path: Path) -> tuple[str, int, int]:
    """What tells a file from its earlier or later selves: path, bytes, time of change."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def kept_table(
    identity: Sequence[Any], build: Callable[[], tuple[pa.Table, Ledger]], at_least: int = WORTH_KEEPING_ROWS
) -> tuple[pa.Table, Ledger]:
    """What `build` gives, which depends on `identity` alone. From `at_least` rows on it is kept, and mapped next time.

    A kept table that is damaged, or a cache folder that cannot be written, costs time and nothing else.
    """
    name = hashlib.blake2b(repr((FORMAT, *identity)).encode(), digest_size=16).hexdigest()
    path = cache_folder() / "tables" / f"{name}.arrow"
    if path.is_file():
        with contextlib.suppress(pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            told = json.loads(table.schema.metadata[b"ledger"])
            dropped = [(item, reason) for item, reason in told["dropped"]]
            return table, Ledger(told["found"], dropped, Counter(told["reasons"]))
    table, ledger = build()
    if table.num_rows >= at_least:
        told = {"found": ledger.found, "dropped": ledger.dropped, "reasons": ledger.reasons}
        with contextlib.suppress(OSError):
            _keep(path, table.replace_schema_metadata({"ledger": json.dumps(told)}))
    return table, ledger


def _keep(path: Path, table: pa.Table) -> None:
    with whole_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
