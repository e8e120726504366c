"""The two tables: `clips.parquet` has a row for each clip, `ledger.parquet` one for each source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from timeloom.curate.listing import Candidate
from timeloom.curate.scene import Scan
from timeloom.data.whole_file import whole_file

TEXT, WHOLE, NUMBER, YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TEXTS = pa.list_(TEXT)

CLIP_COLUMNS: Mapping[str, pa.DataType] = {
    "clip_id": TEXT,
    "source_id": TEXT,
    "source": TEXT,
    "label": TEXT,
    "start_pts": WHOLE,
    "end_pts": WHOLE,
    "central_pts": WHOLE,
    "time_base_num": WHOLE,
    "time_base_den": WHOLE,
    "start_s": NUMBER,
    "end_s": NUMBER,
    "duration_s": NUMBER,
    "num_frames": WHOLE,
    "width": WHOLE,
    "height": WHOLE,
    "aspect": NUMBER,
    "fps": NUMBER,
    "cut_score": NUMBER,
    "motion": NUMBER,
    "brightness": NUMBER,
    "sharpness": NUMBER,
    "letterbox_share": NUMBER,
    "static_share": NUMBER,
    "static_overlay": NUMBER,
    "corrupt_share": NUMBER,
    "caption": TEXT,
    "caption_words": WHOLE,
    "caption_origin": TEXT,
    "clip_similarity": NUMBER,
    "kept": YES,
    "reasons": TEXTS,
    "file": TEXT,
}
LEDGER_COLUMNS: Mapping[str, pa.DataType] = {
    "source": TEXT,
    "source_id": TEXT,
    "label": TEXT,
    "status": TEXT,
    "why": TEXT,
    "codec": TEXT,
    "width": WHOLE,
    "height": WHOLE,
    "fps": NUMBER,
    "variable_rate": YES,
    "interlaced": YES,
    "high_dynamic_range": YES,
    "rotation": WHOLE,
    "duration_s": NUMBER,
    "num_frames": WHOLE,
    "corrupt_frames": WHOLE,
    "warnings": TEXTS,
    "clips": WHOLE,
    "kept": WHOLE,
}
SCENE_FEATURES = ("cut_score", "motion", "brightness", "sharpness", "letterbox_share", "static_share", "corrupt_share")
SOURCE_FACTS = ("codec", "width", "height", "fps", "variable_rate", "interlaced", "high_dynamic_range", "rotation")
GROUP_ROWS = 10_000


def clip_rows(candidate: Candidate, source_id: str, found: Scan) -> list[dict[str, Any]]:
    """A row for each scene, before captions and filters."""
    common = {
        "source_id": source_id,
        "source": candidate.path,
        "label": candidate.label,
        "time_base_num": found.time_base.numerator,
        "time_base_den": found.time_base.denominator,
        "width": found.width,
        "height": found.height,
        "aspect": found.width / found.height,
        "fps": found.fps,
        "static_overlay": None if math.isnan(found.static_overlay) else found.static_overlay,
        "caption": "",
        "caption_words": 0,
        "caption_origin": "",
        "clip_similarity": None,
        "kept": False,
        "reasons": [],
        "file": None,
    }
    return [
        {
            **common,
            "clip_id": f"{source_id}_{scene.start_pts}_{scene.end_pts}",
            "start_pts": scene.start_pts,
            "end_pts": scene.end_pts,
            "central_pts": scene.central_pts,
            "start_s": found.seconds(scene.start_pts),
            "end_s": found.seconds(scene.end_pts),
            "duration_s": float((scene.end_pts - scene.start_pts) * found.time_base),
            "num_frames": scene.num_frames,
            **{name: getattr(scene, name) for name in SCENE_FEATURES},
        }
        for scene in found.scenes
    ]


def ledger_row(
    candidate: Candidate, source_id: str, why: str, found: Scan | None, clips: int, kept: int
) -> dict[str, Any]:
    """The row of a source: done, or failed with why."""
    facts = {name: getattr(found, name) if found else None for name in SOURCE_FACTS}
    return {
        "source": candidate.path,
        "source_id": source_id or None,
        "label": candidate.label,
        "status": "failed" if why else "done",
        "why": why,
        **facts,
        "duration_s": found.duration_s if found else None,
        "num_frames": found.num_frames if found else None,
        "corrupt_frames": found.corrupt_frames if found else None,
        "warnings": list(found.warnings) if found else [],
        "clips": clips,
        "kept": kept,
    }


@contextlib.contextmanager
def table_writer(path: Path, columns: Mapping[str, pa.DataType], facts: Mapping[str, str]) -> Iterator[TableWriter]:
    """A Parquet file that appears when the block ends well; after an error nothing is left. Raises: OSError."""
    schema = pa.schema(list(columns.items()), metadata=dict(facts))
    with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        table = TableWriter(writer)
        yield table
        table.flush()


class TableWriter:
    """Writes rows to a Parquet file, a group of rows at a time."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: list[dict[str, Any]] = []

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows with all columns."""
        self._rows += rows
        if len(self._rows) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
        self._rows = []


def read_rows(path: Path, columns: list[str] | None = None, kept_only: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a table, in order, a group at a time."""
    with pq.ParquetFile(path) as file:
        wanted = [*columns, "kept"] if columns is not None and kept_only else columns
        for batch in file.iter_batches(GROUP_ROWS, columns=wanted):
            yield from (row for row in batch.to_pylist() if not kept_only or row["kept"])
