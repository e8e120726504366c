"""WebVid: CSV `videoid,name,page_idx,page_dir,duration,contentUrl`, files at `{page_dir}/{videoid}.mp4`, or flat."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from timeloom.data.caption_table import read_csv
from timeloom.data.clip import Ledger
from timeloom.data.files import first_there
from timeloom.data.json_file import annotation_files
from timeloom.data.listed_clip import ListedClip
from timeloom.data.table_builder import SECONDS, TEXT
from timeloom.data.whole_file import whole_file

REQUIRED = {"id": ("videoid",), "caption": ("name", "caption")}
OPTIONAL = {"page_dir": ("page_dir",), "duration": ("duration",)}
_DURATION = r"^PT(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?$"


def read_webvid(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """One CSV, or all CSVs of a folder, as a table of clips. Identifiers stay text: they may begin with zeros."""
    read = [read_csv(file, REQUIRED, OPTIONAL) for file in annotation_files(path, ".csv")]
    table = pa.concat_tables([table for table, _ in read], promote_options="default")
    flat = _joined(table["id"], ".mp4")
    candidates = [flat]
    if "page_dir" in table.column_names:
        folders = pc.fill_null(table["page_dir"], "")
        candidates = [pc.if_else(pc.equal(folders, ""), flat, _joined(folders, "/", flat)), flat]
    _, files, there = first_there(videos, candidates)
    columns = {"file": files, "caption": table["caption"], "there": pa.array(there)}
    if "duration" in table.column_names:
        columns["duration_s"] = _seconds(pc.fill_null(table["duration"], ""))
    return pa.table(columns), Ledger.total(ledger for _, ledger in read)


def _joined(*parts: pa.ChunkedArray | str) -> pa.ChunkedArray:
    texts = [pa.scalar(part, TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar("", TEXT))


def _seconds(durations: pa.ChunkedArray) -> pa.ChunkedArray:
    """ "PT00H00M25S" in seconds; null for anything else."""
    parts = pc.extract_regex(durations, pattern=_DURATION)
    numbers = []
    for name in ("h", "m", "s"):
        digits = pc.struct_field(parts, name)
        numbers.append(pc.if_else(pc.equal(digits, ""), pa.scalar("0", digits.type), digits).cast(SECONDS))
    return pc.add(pc.add(pc.multiply(numbers[0], 3600.0), pc.multiply(numbers[1], 60.0)), numbers[2])


def write_webvid(path: Path, clips: Iterable[ListedClip]) -> None:
    """Clips that are files of their own as one CSV; `videos` is the folder that their paths count from. Raises:
    OSError."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"])
        for number, clip in enumerate(clips):
            folder, _, name = (clip.file or "").rpartition("/")
            rows.writerow([name.rpartition(".")[0], clip.caption, number, folder, _duration(clip), clip.video])
        text.detach()


def _duration(clip: ListedClip) -> str:
    """Seconds as "PT00H00M25S", with decimals where there are any."""
    whole = round(clip.end_s - clip.start_s, 3)
    minutes, seconds = divmod(whole, 60)
    return f"PT{int(minutes) // 60:02}H{int(minutes) % 60:02}M{f'{seconds:06.3f}'.rstrip('0').rstrip('.')}S"
