"""Kept clips in the formats of known data sets, so that tools made for those read ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timeloom.data.hd_vg_130m import write_hd_vg_130m
from timeloom.data.hd_vila import write_hd_vila
from timeloom.data.listed_clip import ListedClip
from timeloom.data.msr_vtt import write_msr_vtt
from timeloom.data.panda_70m import write_panda_70m
from timeloom.data.webvid import write_webvid

Rows = Callable[[], Iterator[dict[str, Any]]]

ENDINGS = {"hd-vg-130m": ".json", "hd-vila": ".jsonl", "panda-70m": ".csv", "webvid": ".csv", "msr-vtt": ".json"}
OF_FILES = ("webvid", "msr-vtt")
"""Formats without spans: clips must be files of their own."""


def write_metadata(name: str, path: Path, rows: Rows) -> None:
    """Write the kept clips in the format `name`. `rows` gives the rows of the table anew each time. Raises: OSError."""

    def clips() -> Iterator[ListedClip]:
        return map(_listed, rows())

    if name == "hd-vg-130m":
        write_hd_vg_130m(path, clips())
    elif name == "hd-vila":
        write_hd_vila(path, clips())
    elif name == "panda-70m":
        write_panda_70m(path, clips())
    elif name == "webvid":
        write_webvid(path, clips())
    else:
        write_msr_vtt(path, clips)


def _listed(row: dict[str, Any]) -> ListedClip:
    return ListedClip(
        key=row["clip_id"],
        video=row["source"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        fps=row["fps"],
        caption=row["caption"],
        label=row["label"],
        file=row["file"],
        similarity=row["clip_similarity"],
    )
