"""Which files are there to be curated, with their labels and the captions that lie beside them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timeloom.curate.sampling import Sample, sample
from timeloom.data.captions import FILE_KEYS, read_captions, read_sidecar, read_text
from timeloom.data.files import VIDEO_SUFFIXES
from timeloom.data.folder import CAPTION_FILES
from timeloom.errors import TimeloomError

BESIDE = frozenset((".txt", ".csv", ".jsonl", ".json", ".md", ".srt", ".vtt", ".html"))
"""Files that lie beside videos and are no sources."""
LABEL_KEYS = ("label", "category", "categories", "class")
ID_KEYS = ("video_id", "videoid")
"""Of metadata that names videos without their suffix."""


@dataclass(frozen=True)
class Candidate:
    """A file, before anything but its name is known."""

    path: str
    """Below the folder of the videos, with slashes."""
    label: str = ""
    caption: str = ""
    """Of the whole file, from a sidecar."""
    why: str = ""
    """Why it cannot be curated; empty where it may."""


def find_files(root: Path, leave_out: Path | None = None) -> Iterator[Candidate]:
    """Everything below `root`, or the file `root`, that is a video by its name; and what stands in the way of being
    one.

    In the order of names, folder by folder. Links are followed, and those that lead back are told. The folder
    `leave_out` (the output) is not looked into.
    """
    if root.is_file():
        yield _judge(root.name, root)
        return
    avoid = leave_out.resolve() if leave_out is not None else None
    above = root.resolve()
    yield from _walk(root, "", avoid, tuple(map(_identity, (above, *above.parents))))


def _walk(root: Path, folder: str, avoid: Path | None, above: tuple[tuple[int, int], ...]) -> Iterator[Candidate]:
    try:
        with os.scandir(root / folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        yield Candidate(_readable(folder), why=f"folder cannot be listed ({error.strerror})")
        return
    for name in names:
        path, relative = root / folder / name, f"{folder}/{name}" if folder else name
        if path.is_dir():
            identity = _identity(path)
            if identity in above:
                yield Candidate(_readable(relative), why="link that leads back to a folder above it")
            elif avoid is None or path.resolve() != avoid:
                yield from _walk(root, relative, avoid, (*above, identity))
        elif path.suffix.lower() not in BESIDE:
            yield _judge(relative, path)


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _judge(relative: str, path: Path) -> Candidate:
    if _readable(relative) != relative:
        return Candidate(_readable(relative), why="its name is not UTF-8; rename it")
    if not path.exists():
        return Candidate(relative, why="link to a file that is not there")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return Candidate(relative, why="not a video by its name")
    if not path.is_file():
        return Candidate(relative, why="no regular file")
    return Candidate(relative)


def _readable(name: str) -> str:
    """Names as text that every file format can hold; bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def choose(
    candidates: list[Candidate], labels: dict[str, str] | None, count: int | None, shares: Any, seed: int
) -> tuple[list[Candidate], Sample]:
    """Those to curate, in the order of their names; files that are no videos stay among them, to be told of."""
    whole = {candidate.path: candidate for candidate in candidates if not candidate.why}
    labelled = ((path, label) for path in whole if (label := _label_of(path, labels)) is not None)
    result = sample(labelled, count, shares, seed)
    chosen = [replace(whole[path], label=label) for path, label in result.chosen]
    refused = [candidate for candidate in candidates if candidate.why]
    return sorted([*chosen, *refused], key=lambda candidate: candidate.path), result


def _label_of(path: str, labels: dict[str, str] | None) -> str | None:
    if labels is None:
        return ""
    return labels.get(path, labels.get(path.rpartition("/")[2].rpartition(".")[0]))


def read_labels(path: Path) -> dict[str, str]:
    """Labels by file, or by name of a video without its suffix, from a CSV, a JSONL, or HD-VILA's metadata.

    Of several labels for one video the first counts. Raises: TimeloomError naming the file and line of what is wrong.
    """
    labels: dict[str, str] = {}
    for line, row in _rows(path):
        name = next((row[key] for key in (*FILE_KEYS, *ID_KEYS) if key in row), None)
        label = next((row[key] for key in LABEL_KEYS if key in row), None)
        label = label[0] if isinstance(label, list) and label else label
        if not isinstance(name, str) or not name or not isinstance(label, str | int):
            wanted = f"a file ({', '.join((*FILE_KEYS, *ID_KEYS))}) and a label ({', '.join(LABEL_KEYS)})"
            raise TimeloomError(f"{path}, line {line}: has not {wanted}.")
        labels.setdefault(os.path.normpath(name).replace(os.sep, "/"), str(label).strip())
    return labels


def read_clip_captions(path: Path) -> dict[str, str]:
    """Captions by `clip_id`, from a CSV or JSONL. Raises: TimeloomError naming the file and line of what is wrong."""
    captions: dict[str, str] = {}
    for line, row in _rows(path):
        clip, caption = row.get("clip_id"), row.get("caption")
        if not isinstance(clip, str) or not isinstance(caption, str):
            raise TimeloomError(f"{path}, line {line}: has not a clip_id and a caption.")
        if captions.setdefault(clip, caption.strip()) != caption.strip():
            raise TimeloomError(f"{path}, line {line}: gives clip {clip} a second caption.")
    return captions


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV, or objects of a JSONL, with their line and their keys in lower case."""
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for row in reader:
            yield reader.line_num, {str(key).strip().lower(): value for key, value in row.items()}
        return
    if path.suffix.lower() not in (".jsonl", ".json"):
        raise TimeloomError(f"{path}: labels and captions are read from .csv and .jsonl files only.")
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TimeloomError(f"{path}, line {line}: is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise TimeloomError(f"{path}, line {line}: must be an object.")
        yield line, {key.lower(): value for key, value in row.items()}


def with_sidecars(candidates: list[Candidate], root: Path) -> list[Candidate]:
    """The candidates with the captions that lie in the folder or beside them.

    Raises: TimeloomError where the folder's caption file is wrong.
    """
    root = root if root.is_dir() else root.parent
    listed: dict[str, str] = {}
    file = next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)
    for caption in read_captions(file) if file is not None else []:
        listed.setdefault(os.path.normpath(caption.file).replace(os.sep, "/"), caption.text)
    return [candidate if candidate.why else _with_sidecar(candidate, root, listed) for candidate in candidates]


def _with_sidecar(candidate: Candidate, root: Path, listed: dict[str, str]) -> Candidate:
    try:
        caption = listed.get(candidate.path) or read_sidecar(root / candidate.path) or ""
    except TimeloomError as error:
        return replace(candidate, why=f"sidecar: {error}".rstrip("."))
    return replace(candidate, caption=" ".join(caption.split()))


def in_part(candidate: Candidate, root: Path, part: int, parts: int) -> bool:
    """Whether the candidate belongs to part `part` (from 0) of `parts`. The size of the file decides, so that copies
    of one file, which are to be found, meet in one part."""
    key = str(size_of(candidate, root) or candidate.path).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % parts == part


def size_of(candidate: Candidate, root: Path) -> int:
    """Bytes of its file; 0 where that cannot be told, or it will not be read."""
    try:
        return (root / candidate.path).stat().st_size if not candidate.why else 0
    except OSError:
        return 0
