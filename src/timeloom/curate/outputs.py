"""Clips as files: WebDataset shards of what the scan encoded, or exact cuts of the sources.

A unit is one tar, or the cuts of one source; units are made side by side. Each leaves a note of what it was made
from, so that the same command makes only what is missing or changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from timeloom.curate.cut import cut
from timeloom.curate.stages import Job
from timeloom.curate.store import digest
from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError

FACTS = ("source", "label", "start_s", "end_s", "duration_s", "num_frames", "fps", "motion", "static_overlay")
"""Columns that go into the .json beside a clip in a shard."""
NEEDED = ("clip_id", "source_id", "start_pts", "caption", "width", "height", *FACTS)


@dataclass(frozen=True)
class Unit:
    """What is made in one go."""

    name: str
    """Of the tar, or the source that is cut; below the output folder."""
    rows: list[dict[str, Any]]
    """The clips, as rows of `clips.parquet`."""


@dataclass(frozen=True)
class Made:
    """What became of a unit."""

    broken: dict[str, str]
    """Clips that could not be made, with the reason."""


def shard_name(prefix: str, number: int) -> str:
    """Of the tar `number` of a part of the run."""
    return f"shards/{prefix}{number:05}.tar"


def file_of(row: dict[str, Any], form: str, prefix: str, place: int, clips_per_shard: int) -> str | None:
    """Where the clip lies below the output folder, when it is the `place`-th that is kept; None for virtual clips."""
    if form == "shards":
        return shard_name(prefix, place // clips_per_shard)
    return f"files/{row['source_id'][:2]}/{row['clip_id']}.mp4" if form == "files" else None


def units(rows: Iterable[dict[str, Any]], form: str, prefix: str, clips_per_shard: int) -> Iterator[Unit]:
    """The kept rows, in order, as units."""
    if form == "files":
        for source_id, group in groupby(rows, key=lambda row: row["source_id"]):
            yield Unit(f"files/{source_id[:2]}/{source_id}", list(group))
        return
    for number, numbered in groupby(enumerate(rows), key=lambda item: item[0] // clips_per_shard):
        yield Unit(shard_name(prefix, number), [row for _, row in numbered])


def make_unit(job: Job, output: Path, unit: Unit) -> Made:
    """Write the clips of a unit, unless they are there already."""
    options = job.recipe.output
    made_of = digest(job.recipe.scanning, options, [[row[name] for name in NEEDED] for row in unit.rows])
    note = job.work / "made" / f"{digest(unit.name)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(note.read_text("utf-8"))
        if told["of"] == made_of and all((output / name).is_file() for name in told["files"]):
            return Made({})
    make = _cut_source if options.form == "files" else _write_shard
    try:
        files, broken = make(job, output, unit)
        if not broken:
            with whole_file(note) as file:
                file.write(json.dumps({"of": made_of, "files": files}).encode())
    except OSError as error:
        broken = dict.fromkeys((row["clip_id"] for row in unit.rows), f"cannot be written ({error.strerror})")
    return Made(broken)


def _write_shard(job: Job, output: Path, unit: Unit) -> tuple[list[str], dict[str, str]]:
    """A tar of `clip_id`.mp4, .txt and .json; equal rows give equal bytes."""
    broken: dict[str, str] = {}
    with (
        whole_file(output / unit.name) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for row in unit.rows:
            try:
                with job.store.reading(row["source_id"]) as kept:
                    clip = kept.clip(row["start_pts"])
            except TimeloomError as error:
                broken[row["clip_id"]] = str(error)
                continue
            if clip is None:
                broken[row["clip_id"]] = "was not encoded in the scan"
                continue
            facts = {name: row[name] for name in FACTS}
            members = {
                "mp4": clip,
                "txt": row["caption"].encode(),
                "json": json.dumps(facts, ensure_ascii=False).encode(),
            }
            for suffix, content in members.items():
                entry = tarfile.TarInfo(f"{row['clip_id']}.{suffix}")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
    return [unit.name], broken


def _cut_source(job: Job, output: Path, unit: Unit) -> tuple[list[str], dict[str, str]]:
    """Every kept clip of a source as a file of its own."""
    with job.store.reading(unit.rows[0]["source_id"]) as kept:
        found = kept.scan()
    scenes = {scene.start_pts: scene for scene in found.scenes}
    places = {row["clip_id"]: Path(f"files/{row['source_id'][:2]}/{row['clip_id']}.mp4") for row in unit.rows}
    wanted = [(scenes[row["start_pts"]], output / places[row["clip_id"]]) for row in unit.rows]
    for _, path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
    path = job.root / unit.rows[0]["source"] if job.root.is_dir() else job.root
    done: set[Path] = set()
    try:
        done = {whole.path for whole in cut(path, found, wanted, job.recipe.output.cut)}
        why = "was not cut"
    except TimeloomError as error:
        why = f"cannot be cut: {str(error).removeprefix(f'{path}: ')}".rstrip(".")
    broken = {clip: why for clip, place in places.items() if output / place not in done}
    return [str(place) for clip, place in places.items() if clip not in broken], broken


def remove_strays(output: Path, work: Path, part: str, names: list[str]) -> int:
    """Remove clips that an earlier run of this part made and this one has not; what others put there stays.

    `names` are the files of this run; how many were removed is returned.
    """
    note = work / "made" / f"names{part}.json"
    earlier: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(note.read_text("utf-8"))
    strays = [output / name for name in set(earlier) - set(names)]
    for path in strays:
        path.unlink(missing_ok=True)
    with whole_file(note) as file:
        file.write(json.dumps(names).encode())
    return len(strays)
