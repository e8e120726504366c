"""HD-VILA-100M: JSONL, a line a video: `{"video_id", "url", "clip": [{"clip_id", "span": [from, to]}, ...]}`.

The original has no captions; a clip's `caption` is read where somebody has put one. Looked for: the clip `<clip_id>`,
which ends in .mp4, else its span of the video `<video_id>.mp4`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from timeloom.data.clip import Ledger
from timeloom.data.files import clips_or_spans
from timeloom.data.json_file import annotation_files, seconds
from timeloom.data.listed_clip import ListedClip, by_video, clock_span
from timeloom.data.table_builder import SECONDS, TEXT, TableBuilder, file_identity, kept_table
from timeloom.data.whole_file import whole_file

COLUMNS = {name: TEXT for name in ("group", "caption", "clip", "video")} | {"start_s": SECONDS, "end_s": SECONDS}


def read_hd_vila(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """One JSONL, or all JSONLs of a folder, as a table of clips."""
    files = annotation_files(path, ".jsonl")
    table, ledger = kept_table(("hd-vila", *map(file_identity, files)), lambda: _parse(files))
    return clips_or_spans(videos, table, key=table["clip"]), ledger


def _parse(files: list[Path]) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder(COLUMNS)
    for path in files:
        with path.open("rb") as file:
            for line, content in enumerate(file, start=1):
                if content.strip():
                    _add_clips(builder, f"{path.name}, line {line}", content)
    return builder.finish()


def _add_clips(builder: TableBuilder, item: str, content: bytes) -> None:
    try:
        row: Any = json.loads(content)
        video, clips = str(row["video_id"]), list(row["clip"])
    except (ValueError, KeyError, TypeError, RecursionError):
        builder.refuse(item, "line without a video_id and its clips")
        return
    for clip in clips:
        try:
            name, (start_s, end_s) = str(clip["clip_id"]), [seconds(time) for time in clip["span"]]
            caption = clip.get("caption", "")
            if not isinstance(caption, str):
                raise ValueError("caption")
        except (ValueError, KeyError, TypeError, AttributeError):
            builder.refuse(f"{item}, {video}", "clip without a clip_id and a span, or with a caption that is no text")
            continue
        names = {"group": video, "clip": name, "video": f"{video}.mp4"}
        builder.add(**names, caption=caption, start_s=start_s, end_s=end_s)


def write_hd_vila(path: Path, clips: Iterable[ListedClip]) -> None:
    """Clips as one JSONL, with captions, and the label of a video where it has one. Raises: OSError."""
    with whole_file(path) as file:
        for video, spans in by_video(clips):
            listed = [
                {"clip_id": f"{video}.{number}.mp4", "span": clock_span(clip), "caption": clip.caption}
                for number, clip in enumerate(spans)
            ]
            label = {"label": spans[0].label} if spans[0].label else {}
            row = {"video_id": video, "url": spans[0].video, **label, "clip": listed}
            file.write(f"{json.dumps(row)}\n".encode())
