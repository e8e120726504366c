"""Which of many files are there: asked one by one for a few, one listing a folder for many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from timeloom.data.table_builder import TEXT

FEW = 10_000

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif", ".webp")
)
STILL_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))


def are_stills(files: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of the files are pictures, by their names."""
    suffixes = "|".join(sorted(suffix[1:] for suffix in STILL_SUFFIXES))
    return pc.match_substring_regex(files, rf"(?i)\.({suffixes})$").to_numpy()


def are_there(root: Path, files: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of the `files`, relative to `root`, exist."""
    if len(files) <= FEW:
        return np.array([os.path.isfile(os.path.join(root, file.as_py())) for file in files], dtype=bool)
    folders = pc.unique(pc.replace_substring_regex(files, pattern="[^/]*$", replacement=""))
    listed = [pa.array(_listing(root, folder.as_py()), TEXT) for folder in folders]
    return pc.is_in(files, value_set=pa.concat_arrays(listed)).to_numpy()


def _listing(root: Path, folder: str) -> list[str]:
    """The files in `folder`, which ends with a slash or is empty; names that are not UTF-8 cannot be in a table."""
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except (OSError, ValueError):
        return []
    return [folder + name for name in names if name.isascii() or name.encode("utf-8", "replace").decode() == name]


def first_there(
    root: Path, candidates: Sequence[pa.ChunkedArray]
) -> tuple[NDArray[np.int64], pa.ChunkedArray, NDArray[np.bool_]]:
    """For each row the first of its candidate files that exists: which one, its name, and whether there is any.

    Where there is none, the first candidate's name stands for it.
    """
    choice = np.zeros(len(candidates[0]), dtype=np.int64)
    found = np.zeros(len(choice), dtype=bool)
    chosen = candidates[0]
    for place, files in enumerate(candidates):
        here = ~found & are_there(root, files)
        choice[here], found = place, found | here
        chosen = files if place == 0 else pc.if_else(pa.array(here), files, chosen)
    return choice, chosen if isinstance(chosen, pa.ChunkedArray) else pa.chunked_array([chosen]), found


def clips_or_spans(videos: Path, table: pa.Table, **columns: pa.ChunkedArray) -> pa.Table:
    """Rows of clips as a source's table: a clip is its own file `clip` where that exists, else a span of its `video`.

    `table` has group, caption, clip, video, start_s and end_s; `columns` come before what is made of them.
    """
    choice, file, there = first_there(videos, [table["clip"], table["video"]])
    cut = choice == 1
    return pa.table(
        {
            **columns,
            "group": table["group"],
            "caption": table["caption"],
            "file": file,
            "there": pa.array(there),
            "start_s": pa.array(np.where(cut, table["start_s"].to_numpy(), 0.0)),
            "end_s": pa.array(np.where(cut, table["end_s"].to_numpy(), np.nan), from_pandas=True),
        }
    )
