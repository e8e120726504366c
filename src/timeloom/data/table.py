"""A table of captions and files as a source of clips. Most data sets are this, and a reader that makes the table.

| column | holds |
|---|---|
| `file` | path of the video or picture, relative to the folder of the videos |
| `caption` | text |
| `key` | a name of the clip; `file` and its span where it is absent |
| `group` | the video that it was cut from, so that its clips stay on one side of a split; `file` where it is absent |
| `start_s`, `end_s` | a span of the file; null for its own ends |
| `duration_s`, `fps`, `width`, `height` | of the file as displayed; null where they are not known |
| `there` | whether the file exists, where the reader has looked |

Only `file` and `caption` must be there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from timeloom.data.clip import EXAMPLES, Clip, Frames, Ledger, Outline, Window
from timeloom.data.files import are_stills, are_there
from timeloom.data.movie import Media, Packed, VideoInfo
from timeloom.data.span import TOO_SHORT, ShortClips, draw_span, draw_still, last_s
from timeloom.data.table_builder import TEXT, file_identity
from timeloom.data.video import probe_video
from timeloom.errors import TimeloomError

Packing = Callable[[Path, pa.Table], Packed]

MEASURES = ("start_s", "end_s", "duration_s", "fps", "width", "height", "there")
MANY = 200  # files; probing more takes some seconds
PROBING_THREADS = 4


@dataclass(frozen=True)
class Scan:
    """How a source looks at its clips when it is opened."""

    window: Window | None = None
    """What a clip must be long enough for; None takes clips of any length."""
    short_clips: ShortClips = "drop"
    """What becomes of a clip that is too short (see span.py)."""
    probe_up_to: int = 10_000
    """With at most this many clips, each file is opened and measured; beyond, the table is believed."""


class TableSource:
    """The rows of an Arrow table that can be used; a row becomes a `Clip` when it is asked for.

    Args:
        name: of the source, for messages.
        table: see the top of this file.
        ledger: of the rows that its reader refused; goes on counting here.
        scan: how to look at the files.
        root: the folder of the videos.
        packed: (path, table of one row) -> the file itself, where it is not a file below `root`.

    Raises: TimeloomError where no clip is left.
    """

    def __init__(
        self,
        name: str,
        table: pa.Table,
        ledger: Ledger,
        scan: Scan,
        root: Path,
        packed: Packing | None = None,
    ) -> None:
        self.name, self.scan, self.root = name, scan, root
        self._ledger, self._table, self._packed = ledger, table, packed
        ledger.found += table.num_rows
        self._kept = np.ones(table.num_rows, dtype=bool)
        self._starts, self._ends = self._numbers("start_s", 0), self._numbers("end_s", np.nan)
        self._durations, self._fps = self._numbers("duration_s", np.nan), self._numbers("fps", 0)
        self._widths, self._heights = self._numbers("width", 0), self._numbers("height", 0)
        self._stills = are_stills(table["file"])
        if table.num_rows:
            self._drop_where(pc.equal(table["file"], "").to_numpy(), "names no file")
            self._drop_where(pc.equal(pc.utf8_trim_whitespace(table["caption"]), "").to_numpy(), "empty caption")
            self._name_clips()
            self._drop_missing()
            self._measure()
        if not self._kept.any():
            raise TimeloomError(f"{name}: no clip can be used: {ledger.summary()}.")
        self._keep_the_rest()

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        still, repeat = bool(self._stills[index]), int(self._repeats[index])
        span = None if still else (float(self._starts[index]), float(self._ends[index]), self.scan.short_clips)
        return Clip(
            key=self._text(self._key_column, index) + (f"#{repeat + 1}" if repeat else ""),
            caption=self._text("caption", index).strip(),
            origin=str(self.root / self._text("file", index)),
            width=int(self._widths[index]),
            height=int(self._heights[index]),
            fps=float(self._fps[index]),
            duration_s=float(self._lengths[index]),
            draw=partial(_draw, self._media(index), span),
            still=still,
            identity=partial(self._identity, index, span),
        )

    def outline(self) -> Outline:
        return self._outline

    @cached_property
    def _outline(self) -> Outline:
        groups = _codes(self._table["group" if "group" in self._table.column_names else "file"])
        return Outline(self._heights.astype(np.int32), self._widths.astype(np.int32), self._stills, groups)

    def _text(self, column: str, row: int) -> str:
        return self._table[column][row].as_py()

    def _numbers(self, column: str, unknown: float) -> NDArray[np.float64]:
        """A column with `unknown` for null; one that is absent takes no memory."""
        if column not in self._table.column_names:
            return np.broadcast_to(np.float64(unknown), self._table.num_rows)
        return np.nan_to_num(self._table[column].cast(pa.float64()).to_numpy(), nan=unknown)

    def _media(self, row: int) -> Path | Callable[[], Packed]:
        path = self.root / self._text("file", row)
        return path if self._packed is None else partial(self._packed, path, self._table.slice(row, 1))

    def _identity(self, index: int, span: tuple[float, float, ShortClips] | None) -> tuple[Any, ...]:
        return (*self._file_identity(index), span)

    def _file_identity(self, row: int) -> tuple[Any, ...]:
        """What tells the row's file from any other, and from its earlier or later selves."""
        path = self.root / self._text("file", row)
        try:
            return file_identity(path)
        except OSError as error:
            raise TimeloomError(f"{path}: cannot be read ({error.strerror}).") from error

    def _drop_where(self, wrong: NDArray[np.bool_], reason: str) -> None:
        rows = np.flatnonzero(wrong & self._kept)
        if len(rows):
            names = (self._name_of(int(row)) for row in rows[:EXAMPLES])
            self._ledger.drop_many(names, reason, len(rows))
            self._kept[rows] = False

    @property
    def _key_column(self) -> str:
        return "key" if "key" in self._table.column_names else "file"

    def _name_of(self, row: int) -> str:
        return self._text(self._key_column, row) or f"row {row + 1}"

    def _name_clips(self) -> None:
        """Keys for all rows. Rows alike are one clip; another caption makes another clip, whose key ends in #2."""
        if "key" not in self._table.column_names and (not np.isnan(self._ends).all() or self._starts.any()):
            spans = pa.array(map(_span_name, self._starts, self._ends), TEXT)
            named = pc.binary_join_element_wise(self._table["file"], pa.chunked_array([spans]), pa.scalar("", TEXT))
            self._table = self._table.append_column("key", named)
        keys = _codes(self._table[self._key_column])
        self._repeats = np.zeros(len(keys), dtype=np.int32)
        if keys.max() + 1 == len(keys):
            return
        captions = _codes(self._table["caption"])
        alike = np.ones(len(keys), dtype=bool)
        alike[np.unique(keys * (captions.max() + 1) + captions, return_index=True)[1]] = False
        self._drop_where(alike, "listed twice")
        rows = np.flatnonzero(self._kept)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        places = np.arange(len(rows))
        first = np.r_[True, keys[rows][1:] != keys[rows][:-1]][: len(rows)]
        self._repeats[rows] = places - np.maximum.accumulate(np.where(first, places, 0))

    def _drop_missing(self) -> None:
        if "there" in self._table.column_names:
            there = self._table["there"].to_numpy()
        elif self._packed is not None:
            return
        else:
            there = are_there(self.root, self._table["file"])
        self._drop_where(~there, "no such file")

    def _measure(self) -> None:
        """Open the files where there are not too many, and drop what cannot be read or is too short."""
        rows = np.flatnonzero(self._kept)
        if len(rows) <= self.scan.probe_up_to:
            for name in ("_durations", "_fps", "_widths", "_heights"):
                setattr(self, name, np.array(getattr(self, name)))
            self._probe(rows)
            self._drop_where(self._starts >= self._durations, "begins after the end of its file")
            self._ends = np.fmin(self._ends, self._durations)
            self._lengths = self._ends - self._starts
        else:  # a file's own end is measured when it is read: tables round
            self._lengths = np.fmin(self._ends, self._durations) - self._starts
        self._drop_where(~self._stills & (self._lengths <= 0), "ends before it begins")
        if self.scan.window is not None and self.scan.short_clips == "drop":
            self._drop_where(~self._stills & (self._lengths <= last_s(self.scan.window)), TOO_SHORT)

    def _probe(self, rows: NDArray[np.int64]) -> None:
        """Size, rate and duration of each file, once."""
        codes = _codes(self._table["file"])[rows]
        files, first, place = np.unique(codes, return_index=True, return_inverse=True)
        media = [self._media(int(rows[i])) for i in first]
        quiet = len(files) < MANY or not sys.stderr.isatty()
        with ThreadPoolExecutor(PROBING_THREADS) as pool:
            found = pool.map(_look, media)
            bar = track(
                found, "Looking at videos", len(media), console=Console(stderr=True), transient=True, disable=quiet
            )
            answers = list(bar)
        for row, answer in zip(rows, (answers[i] for i in place), strict=True):
            if isinstance(answer, VideoInfo):
                self._widths[row], self._heights[row] = answer.width, answer.height
                self._fps[row], self._durations[row] = answer.fps, answer.duration_s
            else:
                self._ledger.drop(self._name_of(int(row)), f"unreadable: {answer}")
                self._kept[row] = False

    def _keep_the_rest(self) -> None:
        self._table = self._table.drop_columns([name for name in self._table.column_names if name in MEASURES])
        if not self._kept.all():
            self._table = self._table.filter(pa.array(self._kept))
            for name in ("_starts", "_ends", "_lengths", "_fps", "_widths", "_heights", "_stills", "_repeats"):
                setattr(self, name, getattr(self, name)[self._kept])
        del self._kept, self._durations


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each text, the same for the same."""
    indices = column.combine_chunks().dictionary_encode().indices
    return indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _look(media: Media | Callable[[], Packed]) -> VideoInfo | str:
    """What a file holds, or what is wrong with it."""
    name = str(media)
    try:
        if callable(media):
            media = media()
            name = str(media.path)
        return probe_video(media)
    except TimeloomError as error:
        return str(error).removeprefix(f"{name}: ").rstrip(".")


def _draw(
    media: Media | Callable[[], Packed], span: tuple[float, float, ShortClips] | None, window: Window, start: float
) -> Frames:
    """A window of a clip; `span` is None for a picture."""
    media = media() if callable(media) else media
    if span is None:
        return draw_still(media, window, start)
    return draw_span(media, *span, window, start)


def _span_name(start_s: float, end_s: float) -> str:
    """What tells a clip from others of its file; nothing for the whole file."""
    if not start_s and np.isnan(end_s):
        return ""
    return f"#{start_s:.3f}-" + ("" if np.isnan(end_s) else f"{end_s:.3f}")
