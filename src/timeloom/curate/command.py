"""`timeloom curate`: raw videos become a training set.

timeloom curate videos/ --output dataset/
timeloom curate videos/ --output dataset/ --recipe any-size --set output.form=shards --workers 8
timeloom curate videos/ --output dataset/ --engine ray
timeloom curate videos/ --output dataset/ --shard 3/16            # in an array job, once for each of 1/16 … 16/16
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from timeloom import options as command_options
from timeloom.errors import TimeloomError

if TYPE_CHECKING:
    from timeloom.curate.pipeline import Layout, Result
    from timeloom.curate.stages import Job

SHOWN_REASONS = 6


@dataclass(frozen=True)
class Options:
    """Find scenes in raw videos, caption and filter them, and write what a training run reads.

    Run again, the same command goes on where it stopped.
    """

    videos: Annotated[Path, tyro.conf.Positional]
    """Folder of the videos, with all folders below it; or one file."""
    output: Path
    """Folder of the tables, the report and the clips."""
    recipe: str = "hd-vg"
    """Options as a YAML file, or a packaged recipe: hd-vg (720p, wide-screen, BLIP-2) or any-size (captions from
    sidecars)."""
    set: tuple[str, ...] = ()
    """Changes to the recipe: output.form=shards filters.height.min=480 captions.model=FOLDER ..."""
    engine: Literal["process", "ray"] = "process"
    """process: a pool on this machine; ray: Ray Data, on the cluster that RAY_ADDRESS names or on this machine."""
    workers: int | None = None
    """Processes that scan; one for each core unless said. 0 does everything in this process."""
    shard: str | None = None
    """Do only part i of n, as i/n with i from 1: for array jobs that fill one output folder."""
    device: str = "auto"
    """Where captions are computed: cpu, cuda, cuda:1, ...; auto takes an accelerator where there is one."""
    json: bool = False
    """Print the summary as JSON."""


def main(args: list[str]) -> int:
    """Run `timeloom curate` and return its exit code: 0 also where sources failed, which the ledger tells."""
    options = command_options.parse(Options, args, prog="timeloom curate")
    command_options.require_at_least(options, workers=0)
    from rich.console import Console

    from timeloom.curate.engines import make_engine
    from timeloom.curate.pipeline import curate
    from timeloom.curate.report import make_report
    from timeloom.data.write import replace_file

    began = time.perf_counter()
    status = Console(stderr=True)
    job, layout = _prepare(options)
    for warning in _missing_models(job):
        status.print(warning, highlight=False, style="yellow")
    workers = options.workers if options.workers is not None else len(os.sched_getaffinity(0))
    result = curate(job, layout, make_engine(options.engine, workers), Bars(status))
    title = f"{layout.output.resolve().name}{layout.suffix}"
    report = layout.path("report", ".html")
    replace_file(report, make_report(job, result, title).encode("utf-8", "replace"))
    summary = _summary(job, layout, result, time.perf_counter() - began)
    if options.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print("\n".join(_lines(result, layout, report)))
    return 0


def _prepare(options: Options) -> tuple[Job, Layout]:
    """Everything that can be refused before the work begins."""
    from timeloom.curate.pipeline import Layout
    from timeloom.curate.recipe import load
    from timeloom.curate.stages import Job, check_job

    if not options.videos.exists():
        raise TimeloomError(f"{options.videos}: there is no such folder of videos.")
    if options.output.exists() and not options.output.is_dir():
        raise TimeloomError(f"--output {options.output} is a file; a folder is needed.")
    part, parts = _part(options.shard)
    recipe = load(options.recipe, options.set)
    try:
        (options.output / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TimeloomError(f"--output {options.output}: cannot be made ({error.strerror}).") from error
    job = Job(options.videos.absolute(), options.output.absolute() / "work", recipe, options.device)
    check_job(job)
    return job, Layout(options.output.absolute(), part, parts)


def _part(shard: str | None) -> tuple[int, int]:
    """ "3/16" as (2, 16)."""
    if shard is None:
        return 0, 1
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", shard)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise TimeloomError(f"--shard reads i/n with i from 1 to n, such as 3/16, not {shard!r}.")
    return part - 1, parts


def _missing_models(job: Job) -> list[str]:
    """What will be missing at the end, said at the beginning."""
    from timeloom.curate.captions import find_model

    warnings = []
    for what, name in (("captions", job.recipe.captions.model), ("similarities", job.recipe.captions.similarity)):
        try:
            _ = find_model(name) if name else None
        except TimeloomError as error:
            warnings.append(
                f"No {what}: {error} The scan goes on, and the same command adds them once the model is there. "
                "Captions of your own need none: --set captions.model=null"
            )
    return warnings


class Bars:
    """Draws a bar while things are done, unless nobody looks."""

    def __init__(self, console: Any) -> None:
        self._console = console

    def __call__(self, what: str, things: Iterator[Any], total: int) -> Iterator[Any]:
        from rich.progress import track

        return iter(
            track(things, what, total, console=self._console, transient=True, disable=not self._console.is_terminal)
        )


def _summary(job: Job, layout: Layout, result: Result, seconds: float) -> dict[str, Any]:
    return {
        "output": str(layout.output),
        "part": f"{layout.part + 1}/{layout.parts}",
        **result.statistics.as_dict(),
        "found": result.sample.found.total(),
        "not_sampled": result.sample.left_out if result.sample.chosen else 0,
        "quotas": result.sample.quotas,
        "seconds": round(seconds, 2),
        "scan_cpu_s": round(result.cost.scan_cpu_s, 3),
        "at_full_size": result.cost.estimate(result.statistics, job.recipe.prices),
    }


def _lines(result: Result, layout: Layout, report: Path) -> list[str]:
    s = result.statistics
    lines = [f"{s.expected:,} sources expected: {s.done:,} done + {s.failed:,} failed"]
    lines += [f"  {count:,} {why}" for why, count in s.failures.most_common(SHOWN_REASONS)]
    lines.append(f"{s.clips:,} clips in {s.source_hours:,.2f} h: {s.kept:,} kept ({s.kept_hours:,.2f} h)")
    lines += [f"  {count:,} {why}" for why, count in s.reasons.most_common(SHOWN_REASONS)]
    if len(s.reasons) > SHOWN_REASONS:
        lines.append(f"  and {len(s.reasons) - SHOWN_REASONS} further reasons")
    return [*lines, *map(str, (layout.path("clips", ".parquet"), layout.path("ledger", ".parquet"), report))]
