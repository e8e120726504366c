"""What happens to one source, as functions of a job and a record: probe, scan, caption, similarity.

A record says which source it is and how far it came; what a stage finds out goes to the work folder under the hash of
the source's content, where the next stage, another machine or the next run finds it. Pictures never travel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from timeloom.curate.filters import NO_CAPTION, reasons_of
from timeloom.curate.listing import Candidate, read_clip_captions
from timeloom.curate.recipe import CurateRecipe
from timeloom.curate.rows import clip_rows
from timeloom.curate.scan import scan
from timeloom.curate.scene import Scan, Scene
from timeloom.curate.store import Store, Texts
from timeloom.errors import TimeloomError

OF_SEVERAL = "no caption: the file's own tells of several clips"


@dataclass(frozen=True)
class Job:
    """What all sources have in common."""

    root: Path
    """The folder of the videos."""
    work: Path
    """The work folder."""
    recipe: CurateRecipe
    device: str = "auto"
    """Where captions are computed."""

    @property
    def store(self) -> Store:
        return Store(self.work, self.recipe.scanning)

    def path(self, candidate: Candidate) -> Path:
        """Where the source lies."""
        return self.root / candidate.path if self.root.is_dir() else self.root


@dataclass(frozen=True)
class Record:
    """A source on its way through the stages."""

    candidate: Candidate
    source_id: str = ""
    """Hash of its content; empty where it could not be read."""
    why: str = ""
    """Why it failed; empty where it is well."""


def measure(job: Job, candidate: Candidate) -> Record:
    """The stages that look at one source: probe, then scan."""
    return scan_source(job, probe(job, Record(candidate, why=candidate.why)))


def probe(job: Job, record: Record) -> Record:
    """Read the source once for the hash of its content."""
    if record.why:
        return record
    try:
        return replace(record, source_id=job.store.name_of(job.path(record.candidate)))
    except OSError as error:
        return replace(record, why=f"cannot be read ({error.strerror})")


def scan_source(job: Job, record: Record) -> Record:
    """Find the scenes, unless they are known."""
    if record.why or job.store.has_scan(record.source_id):
        return record
    path, began = job.path(record.candidate), time.process_time()
    try:
        with job.store.writing(record.source_id) as kept:

            def keep(scene: Scene, content: bytes) -> None:
                kept.put_clip(scene.start_pts, content)

            found = scan(path, job.recipe.scanning, keep if job.recipe.output.form == "shards" else None)
            kept.put_scan(found, time.process_time() - began)
    except TimeloomError as error:
        return replace(record, why=str(error).removeprefix(f"{path}: ").rstrip("."))
    except OSError as error:
        return replace(record, why=f"cannot be kept ({error.strerror})")
    except Exception as error:  # a source that nobody thought of must not stop the others
        return replace(record, why=f"unexpected {type(error).__name__}: {error}"[:500])
    return record


def rows_of(job: Job, record: Record) -> tuple[Scan, list[dict[str, Any]]]:
    """What was found in a source, a row for each clip, with captions and reasons as far as they are known."""
    with job.store.reading(record.source_id) as kept:
        found = kept.scan()
    rows = clip_rows(record.candidate, record.source_id, found)
    _caption_rows(job, record, rows)
    for row in rows:
        reasons = reasons_of(row, job.recipe.filters, captioned=True)
        if not row["caption"]:
            whole = record.candidate.caption and len(rows) > 1
            reasons = [OF_SEVERAL if whole and reason == NO_CAPTION else reason for reason in reasons]
        row["reasons"], row["kept"] = reasons, not reasons
    return found, rows


def _caption_rows(job: Job, record: Record, rows: list[dict[str, Any]]) -> None:
    options = job.recipe.captions
    given = _clip_captions(options.file)
    model = job.store.texts("captions", caption_key(job.recipe), record.source_id).values
    similar = job.store.texts("similarity", str(options.similarity), record.source_id).values
    for row in rows:
        clip = row["clip_id"]
        for origin, caption in (
            ("file", given.get(clip, "")),
            ("sidecar", record.candidate.caption if len(rows) == 1 else ""),
            (str(options.model), model.get(clip, "")),
        ):
            if caption:
                row.update(caption=caption, caption_words=len(caption.split()), caption_origin=origin)
                break
        value = similar.get(clip)
        if value is not None and value[0] == row["caption"]:
            row["clip_similarity"] = value[1]


@lru_cache(maxsize=4)
def _clip_captions(file: str | None) -> dict[str, str]:
    return read_clip_captions(Path(file).expanduser()) if file else {}


def caption_key(recipe: CurateRecipe) -> str:
    """All that decides what the model says of a picture."""
    options = recipe.captions
    return repr((options.model, options.prompt, options.max_tokens, options.precision))


def describe(job: Job, records: list[Record]) -> list[Record]:
    """The stages that look at several sources at once, through networks: caption, then similarity."""
    return similarity(job, caption(job, records))


def caption(job: Job, records: list[Record]) -> list[Record]:
    """Ask the model for the captions that nobody has given, of clips that filters keep."""
    options = job.recipe.captions
    if options.model is None:
        return records
    key = caption_key(job.recipe)

    def wanted(row: dict[str, Any]) -> bool:
        return not row["caption"]

    def ask(pictures: list[bytes], rows: list[dict[str, Any]]) -> list[Any]:
        from timeloom.curate.captions import captioner

        return captioner(options, job.device).captions(pictures)

    def size() -> int:
        from timeloom.curate.captions import captioner

        return captioner(options, job.device).batch_size

    return _through_network(job, records, "captions", key, wanted, ask, size)


def similarity(job: Job, records: list[Record]) -> list[Record]:
    """Let a CLIP say how well captions fit their pictures."""
    options = job.recipe.captions
    if options.similarity is None:
        return records

    def wanted(row: dict[str, Any]) -> bool:
        return bool(row["caption"]) and row["clip_similarity"] is None

    def ask(pictures: list[bytes], rows: list[dict[str, Any]]) -> list[Any]:
        from timeloom.curate.captions import similarity_judge

        texts = [row["caption"] for row in rows]
        values = similarity_judge(options, job.device).similarities(pictures, texts)
        return [[text, value] for text, value in zip(texts, values, strict=True)]

    def size() -> int:
        from timeloom.curate.captions import similarity_judge

        return similarity_judge(options, job.device).batch_size

    return _through_network(job, records, "similarity", options.similarity, wanted, ask, size)


def _through_network(
    job: Job,
    records: list[Record],
    kind: str,
    key: str,
    wanted: Callable[[dict[str, Any]], bool],
    ask: Callable[[list[bytes], list[dict[str, Any]]], list[Any]],
    batch_size: Callable[[], int],
) -> list[Record]:
    """Ask for the `wanted` clips of all records in batches, and keep the answers source by source.

    Each answer is put where its clip's row came from; nothing goes by position alone. A model that is not here fails
    the sources that need it.
    """
    todo = {}
    for record in records:
        if not record.why and (rows := _asked_rows(job, record, wanted)):
            todo[record.source_id] = rows
    if not todo:
        return records
    try:
        size = batch_size()
    except TimeloomError as error:
        missing = str(error).rstrip(".")
        return [replace(r, why=f"{kind}: {missing}") if r.source_id in todo and not r.why else r for r in records]
    for source_id, answers, seconds in _answers(job, todo, ask, size):
        known = job.store.texts(kind, key, source_id)
        try:
            job.store.keep_texts(kind, key, source_id, Texts({**known.values, **answers}, known.seconds + seconds))
        except OSError as error:
            why = f"{kind} cannot be kept ({error.strerror})"
            records = [replace(record, why=why) if record.source_id == source_id else record for record in records]
    return records


def _asked_rows(job: Job, record: Record, wanted: Callable[[dict[str, Any]], bool]) -> list[tuple[int, dict[str, Any]]]:
    """(number of the scene, row) of the clips to ask about."""
    with job.store.reading(record.source_id) as kept:
        rows = clip_rows(record.candidate, record.source_id, kept.scan())
    _caption_rows(job, record, rows)
    return [
        (number, row)
        for number, row in enumerate(rows)
        if wanted(row) and (job.recipe.captions.dropped_too or not reasons_of(row, job.recipe.filters, captioned=False))
    ]


def _answers(
    job: Job,
    todo: dict[str, list[tuple[int, dict[str, Any]]]],
    ask: Callable[[list[bytes], list[dict[str, Any]]], list[Any]],
    size: int,
) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(source, answers by clip, seconds), each as soon as its last clip is answered. A batch may span sources."""
    answers: dict[str, dict[str, Any]] = {source_id: {} for source_id in todo}
    spent = dict.fromkeys(todo, 0.0)
    waiting: list[tuple[dict[str, Any], bytes]] = []

    def flush() -> Iterator[tuple[str, dict[str, Any], float]]:
        rows, pictures = [row for row, _ in waiting], [picture for _, picture in waiting]
        waiting.clear()
        began = time.perf_counter()
        for row, answer in zip(rows, ask(pictures, rows), strict=True):
            answers[row["source_id"]][row["clip_id"]] = answer
        each_s = (time.perf_counter() - began) / len(rows)
        for source_id in dict.fromkeys(row["source_id"] for row in rows):
            spent[source_id] += each_s * sum(row["source_id"] == source_id for row in rows)
            if len(answers[source_id]) == len(todo[source_id]):
                yield source_id, answers.pop(source_id), spent[source_id]

    for source_id, rows in todo.items():
        for number, row in rows:
            with job.store.reading(source_id) as kept:
                waiting.append((row, kept.picture(number)))
            if len(waiting) == size:
                yield from flush()
    if waiting:
        yield from flush()


def make_stages(job: Job) -> tuple[Callable[[Candidate], Record], Callable[[list[Record]], list[Record]] | None]:
    """The stages as an engine takes them: one source at a time, then several together where networks are asked."""
    asks = job.recipe.captions.model is not None or job.recipe.captions.similarity is not None
    return partial(measure, job), partial(describe, job) if asks else None


def check_job(job: Job) -> None:
    """Raise TimeloomError for what is wrong with the options themselves, before any source is looked at."""
    from timeloom.device import choose_device

    _clip_captions(job.recipe.captions.file)
    if job.device != "auto":
        choose_device(job.device)
