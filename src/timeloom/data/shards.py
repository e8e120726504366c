"""WebDataset shards as a source of clips: tar files whose members `KEY.mp4`, `KEY.txt`, `KEY.json` are one clip.

Random access is what makes order and resume arithmetic, so a shard is indexed, not streamed: the headers of its members
are read once, and what they say (with captions) is kept in Timeloom's cache folder under the shard's identity. A clip
is then one read at an offset. Shards on a server are read in the same way, by HTTP range requests: only the headers,
the captions and the clips that are asked for travel. What `pipe:` commands print can only be read from the beginning,
so it is kept whole in the cache folder. Nothing is ever unpickled: other members are skipped unread.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from timeloom.data.clip import Ledger
from timeloom.data.files import STILL_SUFFIXES, VIDEO_SUFFIXES
from timeloom.data.movie import Packed
from timeloom.data.remote import HttpFile
from timeloom.data.table import Scan, TableSource
from timeloom.data.table_builder import (
    SECONDS,
    TEXT,
    WHOLE,
    TableBuilder,
    cache_folder,
    file_identity,
    kept_table,
)
from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError

COLUMNS = {"key": TEXT, "file": TEXT, "caption": TEXT, "shard": WHOLE, "offset": WHOLE, "size": WHOLE} | {
    name: SECONDS for name in ("duration_s", "fps", "width", "height")
}
CAPTION_SUFFIX, FACTS_SUFFIX = ".txt", ".json"
TEXT_BYTES = 1 << 20  # longer members are no captions
HEADER_BYTES = 1 << 14  # asked for at once: a caption and the headers around it
INDEXING_THREADS = 8


class Shard(Protocol):
    """A tar file, wherever it lies."""

    name: str

    def identity(self) -> tuple[Any, ...]:
        """What tells it from its earlier or later selves."""
        ...

    def open(self) -> io.BufferedIOBase:
        """A seekable file; its user closes it."""
        ...

    def read(self, offset: int, size: int) -> bytes: ...


class LocalShard:
    """A shard on a disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def identity(self) -> tuple[Any, ...]:
        return file_identity(self.path)

    def open(self) -> io.BufferedIOBase:
        return self.path.open("rb")

    def read(self, offset: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class HttpShard:
    """A shard on a server that answers range requests."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url, url.partition("://")[2].partition("?")[0]

    def identity(self) -> tuple[Any, ...]:
        return (self.url, *HttpFile(self.url).identity)

    def open(self) -> io.BufferedIOBase:
        return io.BufferedReader(HttpFile(self.url), HEADER_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        return HttpFile.fetch(self.url, offset, size)


def expand(pattern: str) -> list[str]:
    """The shards that a path, a folder, a pattern with braces, a URL or a `pipe:` command stands for.

    Raises: TimeloomError where it stands for none.
    """
    if not _is_remote(pattern) and Path(pattern).is_dir():
        found = [str(path) for path in sorted(Path(pattern).glob("*.tar"))]
        if not found:
            raise TimeloomError(f"{pattern}: holds no .tar file.")
        return found
    import braceexpand  # comes with webdataset, whose notation this is

    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:  # UnbalancedBracesError
        raise TimeloomError(f"{pattern}: its braces do not pair; write shard-{{000..012}}.tar.") from error


def _is_remote(name: str) -> bool:
    return name.startswith(("http://", "https://", "pipe:"))


def _shard(name: str) -> Shard:
    if name.startswith(("http://", "https://")):
        return HttpShard(name)
    if name.startswith("pipe:"):
        return LocalShard(_piped(name.removeprefix("pipe:")))
    if not Path(name).is_file():
        raise TimeloomError(f"{name}: there is no such shard.")
    return LocalShard(Path(name))


def _piped(command: str) -> Path:
    """What a shell command prints, kept under the command's name."""
    path = cache_folder() / "shards" / f"{hashlib.blake2b(command.encode(), digest_size=16).hexdigest()}.tar"
    if path.is_file():
        return path
    with whole_file(path) as file:
        done = subprocess.run(command, shell=True, stdout=file, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise TimeloomError(f"pipe:{command}: ended with code {done.returncode} ({' '.join(said)}).")
    return path


class ShardSource(TableSource):
    """The captioned clips of shards. `ledger` counts samples without a video or a caption.

    Raises: TimeloomError where a shard is missing, no tar file or cut short, or no clip is left.
    """

    def __init__(self, pattern: str, scan: Scan) -> None:
        self.shards = [_shard(name) for name in expand(pattern)]
        remote = any(isinstance(shard, HttpShard) for shard in self.shards)
        with ThreadPoolExecutor(INDEXING_THREADS) as pool:
            self._identities = list(pool.map(_identity, self.shards))
            indices = list(pool.map(_index, self.shards, self._identities))
        place = list(COLUMNS).index("shard")
        tables = [
            table.set_column(place, "shard", pa.array([number] * table.num_rows, WHOLE))
            for number, (table, _) in enumerate(indices)
        ]
        ledger = Ledger.total(own for _, own in indices)
        if remote:  # opening every clip would fetch it
            scan = Scan(scan.window, scan.short_clips, probe_up_to=-1)
        super().__init__(pattern, pa.concat_tables(tables), ledger, scan, Path(), packed=self._member)

    def _file_identity(self, row: int) -> tuple[Any, ...]:
        shard, offset, size = (self._table[column][row].as_py() for column in ("shard", "offset", "size"))
        return (*self._identities[shard], offset, size)

    def _member(self, path: Path, row: pa.Table) -> Packed:
        shard = self.shards[row["shard"][0].as_py()]
        offset, size = row["offset"][0].as_py(), row["size"][0].as_py()
        try:
            content = shard.read(offset, size)
        except OSError as error:
            raise TimeloomError(f"{path}: cannot be read ({error.strerror or error}).") from error
        if len(content) != size:
            raise TimeloomError(f"{path}: its shard is cut short.")
        return Packed(path, content)


def _identity(shard: Shard) -> tuple[Any, ...]:
    try:
        return shard.identity()
    except OSError as error:
        raise TimeloomError(f"{shard.name}: cannot be read ({error.strerror or error}).") from error


def _index(shard: Shard, identity: tuple[Any, ...]) -> tuple[pa.Table, Ledger]:
    try:
        return kept_table(("shard", 2, *identity), partial(_read_headers, shard), at_least=0)
    except tarfile.TarError as error:
        raise TimeloomError(f"{shard.name}: is no tar file, or it is damaged or cut short ({error}).") from error
    except OSError as error:
        raise TimeloomError(f"{shard.name}: cannot be read ({error.strerror or error}).") from error


def _read_headers(shard: Shard) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder(COLUMNS)
    with shard.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
        files = ((*_parts(member.name), member) for member in tar if member.isfile())
        for key, group in groupby(files, key=lambda item: item[0]):
            members = {suffix: member for _, suffix, member in group}
            _add_sample(builder, shard, tar, key, members)
        _require_the_end(file, tar.offset)
    return builder.finish()


def _require_the_end(file: io.BufferedIOBase, offset: int) -> None:
    """Behind the last member there are zeros alone, a block of them at least. `tarfile` takes a header that is damaged,
    overwritten or cut short for the end, and what comes after it would be lost without a word.

    Raises: tarfile.ReadError.
    """
    file.seek(offset)
    found = False
    while block := file.read(HEADER_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"its members end at byte {offset:,}, and there is more behind")
        found = found or len(block) >= tarfile.BLOCKSIZE
    if not found:
        raise tarfile.ReadError("it lacks the zeros at the end")


def _parts(name: str) -> tuple[str, str]:
    """ "a/b.mp4" as ("a/b", ".mp4"): keys have no dots, so "a/b.seg.png" is of ("a/b", ".seg.png")."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + stem, dot + suffix.lower()


def _add_sample(
    builder: TableBuilder, shard: Shard, tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo]
) -> None:
    item = f"{shard.name}/{key}"
    video = next((suffix for suffix in members if suffix in VIDEO_SUFFIXES | STILL_SUFFIXES), None)
    if video is None:
        builder.refuse(item, "sample without a video or picture")
        return
    try:
        facts = json.loads(_text(tar, members.get(FACTS_SUFFIX)) or "{}")
        facts = facts if isinstance(facts, dict) else {}
        caption = _text(tar, members.get(CAPTION_SUFFIX))
        caption = facts.get("caption") if caption is None else caption
    except UnicodeError:
        builder.refuse(item, "sample whose .txt or .json is not UTF-8")
        return
    except (ValueError, RecursionError):
        builder.refuse(item, "sample whose .json is not JSON")
        return
    if not isinstance(caption, str):
        builder.refuse(item, "sample without a caption")
        return
    known = {"duration_s": ("duration_s", "duration"), "fps": ("fps",), "width": ("width",), "height": ("height",)}
    numbers = {ours: next(_numbers(facts, names), None) for ours, names in known.items()}
    place = {"shard": 0, "offset": members[video].offset_data, "size": members[video].size}
    own_key = f"{Path(shard.name).name}/{key}"  # many shards count their samples from 0
    builder.add(key=own_key, file=f"{shard.name}/{key}{video}", caption=caption, **place, **numbers)


def _numbers(facts: dict[str, Any], names: tuple[str, ...]) -> Iterator[float]:
    values = (facts.get(name) for name in names)
    return (float(value) for value in values if isinstance(value, int | float) and 0 < value < 1e15)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> str | None:
    """The text of a member. Raises UnicodeError, or ValueError where it is too long for a text."""
    if member is None:
        return None
    if member.size > TEXT_BYTES:
        raise ValueError("too long")
    file = tar.extractfile(member)
    assert file is not None  # only files are asked for
    return file.read().decode("utf-8-sig").strip()
