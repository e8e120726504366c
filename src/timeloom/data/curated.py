"""The folder that `timeloom curate` fills, as a source: the clips that it kept, in whichever form.

Virtual clips are spans of the sources, which lie where they lay, or in `videos`; clips in files or shards need no
source.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timeloom.data.clip import ClipSource, Ledger
from timeloom.data.shards import ShardSource
from timeloom.data.table import Scan, TableSource
from timeloom.errors import TimeloomError

COLUMNS = [
    "clip_id",
    "source_id",
    "source",
    "caption",
    "start_s",
    "end_s",
    "duration_s",
    "fps",
    "width",
    "height",
    "kept",
    "file",
]
VIDEOS, FORM = b"timeloom.videos", b"timeloom.form"


def is_curated(folder: Path) -> bool:
    """Whether `timeloom curate` has made the folder."""
    return any(folder.glob("clips*.parquet"))


def open_curated(folder: Path, videos: str | None, scan: Scan) -> ClipSource:
    """The kept clips of a curated folder, or of one `clips.parquet`.

    Raises: TimeloomError where there is none, or it is another kind of table.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("clips*.parquet"))
    home = folder.parent if folder.is_file() else folder
    if not files:
        raise TimeloomError(f"{folder}: holds no clips.parquet; timeloom curate makes one.")
    tables = [_read(file) for file in files]
    facts = tables[0].schema.metadata or {}
    form = facts.get(FORM, b"").decode()
    table = pa.concat_tables([one.replace_schema_metadata(None) for one in tables])
    table = table.filter(table["kept"])
    if form == "shards":
        return ShardSource(str(home / "shards"), scan)
    columns = {"key": table["clip_id"], "group": table["source_id"], "caption": table["caption"]}
    columns |= {name: table[name] for name in ("fps", "width", "height")}
    if form == "files":
        columns |= {"file": table["file"], "duration_s": table["duration_s"]}
        root = home
    else:
        columns |= {"file": table["source"], "start_s": table["start_s"], "end_s": table["end_s"]}
        root = Path(videos).expanduser() if videos else Path(facts[VIDEOS].decode())
    if not root.is_dir():
        raise TimeloomError(f"{root}: the folder of the sources is not there; say where it is in data.videos.")
    texts = {"key", "group", "caption", "file"}
    arrays = {name: pc.cast(column, pa.large_string()) if name in texts else column for name, column in columns.items()}
    return TableSource(str(folder), pa.table(arrays), Ledger(), scan, root)


def _read(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file, columns=COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise TimeloomError(f"{file}: is not a table of curated clips ({str(error).splitlines()[0]}).") from error
    if VIDEOS not in (table.schema.metadata or {}):
        raise TimeloomError(f"{file}: does not say where its sources lie; is it made by timeloom curate?")
    return table
