"""Curation as a whole: sample → probe → scan → caption → filter → statistics → shards.

    dataset/clips.parquet     a row for each clip: exact span, features, caption, and why it was dropped, if it was
    dataset/ledger.parquet    a row for each source: done, or failed and why
    dataset/statistics.json, report.html, metadata/…, shards/… or files/…
    dataset/work/             what makes the next run of the same command quick; may be removed

Everything but `work` is made anew at the end of every run, from what `work` holds, in the order of the sources'
names: so a run that was stopped ends with the same rows, and equal runs give equal files. Only the report tells
times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from timeloom.curate import listing
from timeloom.curate.engines import Died, Engine
from timeloom.curate.metadata import ENDINGS, write_metadata
from timeloom.curate.outputs import Made, file_of, make_unit, remove_strays, units
from timeloom.curate.rows import CLIP_COLUMNS, LEDGER_COLUMNS, ledger_row, read_rows, table_writer
from timeloom.curate.sampling import Sample
from timeloom.curate.stages import Job, Record, caption_key, make_stages, rows_of
from timeloom.curate.statistics import COPY, Cost, Statistics
from timeloom.curate.store import digest
from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError

Progress = Callable[[str, Iterator[Any], int], Iterator[Any]]
"""progress(what, things, how many) -> the same things, while a bar is drawn."""


@dataclass(frozen=True)
class Layout:
    """Where a run, or one part of it, puts what it makes."""

    output: Path
    part: int = 0
    parts: int = 1

    @property
    def suffix(self) -> str:
        """Of file names: nothing, or "-00002-of-00008"."""
        return f"-{self.part:05}-of-{self.parts:05}" if self.parts > 1 else ""

    @property
    def prefix(self) -> str:
        """Of the names of shards."""
        return f"{self.suffix[1:]}-" if self.suffix else ""

    def path(self, stem: str, ending: str) -> Path:
        """Of a file of this part."""
        return self.output / f"{stem}{self.suffix}{ending}"

    def check(self) -> None:
        """Raise TimeloomError where the folder holds a run that was divided otherwise."""
        for path in self.output.glob("clips*.parquet"):
            _, _, parts = path.stem.partition("-of-")
            if int(parts or 1) != self.parts:
                other = f"{int(parts)} parts" if parts else "one part"
                raise TimeloomError(
                    f"{self.output} holds a run in {other} ({path.name}); give the same --shard, or another --output."
                )


@dataclass
class Result:
    """What a run did."""

    statistics: Statistics
    cost: Cost
    sample: Sample
    shown: list[tuple[Record, dict[str, Any], list[dict[str, Any]]]] = field(default_factory=list)
    """Sources for the report: record, row of the ledger, rows of the clips."""


def choose_sources(job: Job, layout: Layout) -> tuple[list[listing.Candidate], Sample]:
    """The sources of this part, in the order of their names."""
    options = job.recipe.sampling
    labels = listing.read_labels(Path(options.labels).expanduser()) if options.labels else None
    found = list(listing.find_files(job.root, leave_out=layout.output))
    if labels is None and options.count is None:
        sample = Sample()
        chosen = sorted(found, key=lambda candidate: candidate.path)
        sample.found[""] = sum(not candidate.why for candidate in found)
    else:
        chosen, sample = listing.choose(found, labels, options.count, options.shares, options.seed)
    if not any(not candidate.why for candidate in chosen):
        raise TimeloomError(f"{job.root}: holds no video to curate ({len(found)} other files).")
    mine = [candidate for candidate in chosen if listing.in_part(candidate, job.root, layout.part, layout.parts)]
    return listing.with_sidecars(mine, job.root) if job.recipe.captions.sidecars else mine, sample


def curate(job: Job, layout: Layout, engine: Engine, progress: Progress) -> Result:
    """Run all stages and write all tables. Raises TimeloomError for a wrong option or an output that cannot be
    written."""
    layout.check()
    candidates, sample = choose_sources(job, layout)
    each, together = make_stages(job)
    records = [Record(candidate) for candidate in candidates]
    # The largest go first, lest one of them keeps a worker busy when all others are done.
    places = sorted(range(len(candidates)), key=lambda place: -listing.size_of(candidates[place], job.root))
    largest_first = [candidates[place] for place in places]
    for number, found in progress("Scanning", engine.run(each, largest_first, together), len(candidates)):
        place = places[number]
        records[place] = Record(candidates[place], why=found.why) if isinstance(found, Died) else found
    records = _without_copies(records)
    draft = job.work / f"draft{layout.suffix}.parquet"
    result = Result(Statistics(), Cost(), sample)
    ledger = _write_draft(job, draft, records, result)
    broken = _make_outputs(job, layout, engine, draft, progress)
    _write_clips(job, layout, draft, broken, ledger, result)
    draft.unlink()
    with table_writer(layout.path("ledger", ".parquet"), LEDGER_COLUMNS, _facts(job)) as table:
        for row in ledger:
            table.add([row])
            result.statistics.add_source(row)
    for name in job.recipe.output.metadata:
        kept = partial(read_rows, layout.path("clips", ".parquet"), kept_only=True)
        write_metadata(name, layout.path(f"metadata/{name}", ENDINGS[name]), kept)
    with whole_file(layout.path("statistics", ".json")) as file:
        file.write(json.dumps(result.statistics.as_dict(), indent=2, ensure_ascii=False).encode())
    return result


def _without_copies(records: list[Record]) -> list[Record]:
    """Of files with the same content the first by name counts."""
    first: dict[str, str] = {}
    unique = []
    for record in records:
        if not record.why:
            original = first.setdefault(record.source_id, record.candidate.path)
            if original != record.candidate.path:
                record = Record(record.candidate, record.source_id, f"{COPY} as {original}")
        unique.append(record)
    return unique


def _write_draft(job: Job, draft: Path, records: list[Record], result: Result) -> list[dict[str, Any]]:
    """The clips before their files are made, and the rows of the ledger."""
    ledger = []
    step = max(1, len(records) // job.recipe.output.shown_sources) if job.recipe.output.shown_sources else 0
    with table_writer(draft, CLIP_COLUMNS, {}) as table:
        for number, record in enumerate(records):
            found, rows = None, list[dict[str, Any]]()
            if record.source_id and not record.why.startswith(COPY) and job.store.has_scan(record.source_id):
                found, rows = rows_of(job, record)
                table.add(rows)
                with job.store.reading(record.source_id) as kept:
                    result.cost.scan_cpu_s += kept.cpu_s()
                result.cost.scanned_hours += found.duration_s / 3600
                said = job.store.texts("captions", caption_key(job.recipe), record.source_id)
                result.cost.caption_s += said.seconds
                result.cost.captioned += len(said.values)
            ledger.append(ledger_row(record.candidate, record.source_id, record.why, found, len(rows), 0))
            if step and number % step == 0 and found is not None:
                result.shown.append((record, ledger[-1], rows))
    return ledger


def _make_outputs(job: Job, layout: Layout, engine: Engine, draft: Path, progress: Progress) -> dict[str, str]:
    """Make the clips' own files; clips that could not be made, with the reason."""
    options = job.recipe.output
    if options.form == "virtual":
        remove_strays(layout.output, job.work, layout.suffix, [])
        return {}
    todo = list(units(read_rows(draft, kept_only=True), options.form, layout.prefix, options.clips_per_shard))
    broken: dict[str, str] = {}
    make = partial(make_unit, job, layout.output)
    for number, made in progress("Writing clips", engine.run(make, todo), len(todo)):
        if isinstance(made, Made):
            broken |= made.broken
        else:
            broken |= dict.fromkeys((row["clip_id"] for row in todo[number].rows), made.why)
    names = [unit.name for unit in todo]
    if options.form == "files":
        names = [f"files/{row['source_id'][:2]}/{row['clip_id']}.mp4" for unit in todo for row in unit.rows]
    remove_strays(layout.output, job.work, layout.suffix, names)
    return broken


def _write_clips(
    job: Job, layout: Layout, draft: Path, broken: dict[str, str], ledger: list[dict[str, Any]], result: Result
) -> None:
    """The final rows: where each clip lies, and which of them could not be made."""
    options = job.recipe.output
    kept_of: dict[str, int] = {}
    place = 0
    with table_writer(layout.path("clips", ".parquet"), CLIP_COLUMNS, _facts(job)) as table:
        for row in read_rows(draft):
            if row["kept"]:
                row["file"] = file_of(row, options.form, layout.prefix, place, options.clips_per_shard)
                place += 1
                if row["clip_id"] in broken:
                    row.update(kept=False, file=None, reasons=[broken[row["clip_id"]]])
            kept_of[row["source_id"]] = kept_of.get(row["source_id"], 0) + row["kept"]
            result.statistics.add_clip(row)
            table.add([row])
    for line in ledger:
        if line["clips"]:
            line["kept"] = kept_of.get(line["source_id"], 0)


def _facts(job: Job) -> dict[str, str]:
    """What a table says of itself: where the sources lie, and what decided its rows."""
    root = job.root if job.root.is_dir() else job.root.parent
    recipe = job.recipe.model_dump(mode="json", exclude={"prices"})
    return {
        "timeloom.videos": str(root.resolve()),
        "timeloom.form": job.recipe.output.form,
        "timeloom.recipe": json.dumps(recipe, sort_keys=True),
        "timeloom.recipe_digest": digest(json.dumps(recipe, sort_keys=True)),
    }
