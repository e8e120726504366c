"""Panda-70M: CSV, one row a video: `videoID,url,timestamp,caption,matching_score,...`, the lists in Python's notation.

Looked for: the clip `<videoID>.<n>.mp4`, n counted from 0, else its span of the video `<videoID>.mp4`.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from timeloom.data.caption_table import read_csv
from timeloom.data.clip import Ledger
from timeloom.data.files import clips_or_spans
from timeloom.data.json_file import annotation_files, seconds
from timeloom.data.listed_clip import ListedClip, by_video, clock_span
from timeloom.data.table_builder import SECONDS, TEXT, TableBuilder, file_identity, kept_table
from timeloom.data.whole_file import whole_file

REQUIRED = {"id": ("videoID",), "times": ("timestamp",), "captions": ("caption",)}
COLUMNS = {name: TEXT for name in ("group", "caption", "clip", "video")} | {"start_s": SECONDS, "end_s": SECONDS}


def read_panda_70m(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """One CSV, or all CSVs of a folder, as a table of clips."""
    files = annotation_files(path, ".csv")
    table, ledger = kept_table(("panda-70m", *map(file_identity, files)), lambda: _parse(files))
    return clips_or_spans(videos, table), ledger


def _parse(files: list[Path]) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder(COLUMNS)
    for path in files:
        table, ledger = read_csv(path, REQUIRED, {})
        builder.ledger = Ledger.total([builder.ledger, ledger])
        for batch in table.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                _add_clips(builder, row["id"], row["times"], row["captions"])
    return builder.finish()


def _add_clips(builder: TableBuilder, video: str, times: str, captions: str) -> None:
    """`ast.literal_eval` builds values and runs nothing."""
    try:
        spans = [(seconds(start), seconds(end)) for start, end in ast.literal_eval(times)]
        texts = ast.literal_eval(captions)
        if not isinstance(texts, list) or len(spans) != len(texts):
            raise ValueError("one caption a span is expected")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        builder.refuse(video, "row whose timestamp and caption are not two lists of one length")
        return
    for place, ((start_s, end_s), text) in enumerate(zip(spans, texts, strict=True)):
        if not isinstance(text, str):
            builder.refuse(f"{video}.{place}", "caption that is no text")
            continue
        names = {"group": video, "clip": f"{video}.{place}.mp4", "video": f"{video}.mp4"}
        builder.add(**names, caption=text, start_s=start_s, end_s=end_s)


def write_panda_70m(path: Path, clips: Iterable[ListedClip]) -> None:
    """Clips as one CSV, a row a video; `matching_score` is what was measured of caption and picture. Raises:
    OSError."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["videoID", "url", "timestamp", "caption", "matching_score"])
        for video, spans in by_video(clips):
            lists = ([clock_span(clip) for clip in spans], [clip.caption for clip in spans])
            rows.writerow([video, spans[0].video, *map(repr, lists), repr([clip.similarity for clip in spans])])
        text.detach()
