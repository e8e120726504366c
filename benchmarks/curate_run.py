"""What a whole `timeloom curate` costs: many small files, one worker beside two, memory of a worker.

    python benchmarks/curate_run.py                       # some minutes of CPU; needs nothing but Timeloom
    python benchmarks/curate_run.py --part small --files 500
    python benchmarks/curate_run.py --part workers        # wall time: on a machine with nothing else running

The files of a size are one film in which only a box at the end differs, so each is a source of its own. CPU seconds
include all workers; on a machine that does other work too, they are what can be compared. A part that is not run keeps
what the results say of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from timeloom.curate.engines import ProcessEngine
from timeloom.curate.pipeline import Layout, curate
from timeloom.curate.recipe import load
from timeloom.curate.stages import Job
from timeloom.data import write_video

OPEN = ["filters={}", "captions.model=null"]


def make_files(folder: Path, count: int, height: int, width: int, frames: int) -> None:
    """`count` films that differ in a box that players pass over."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (2, height // 8, width // 8, 3), dtype=np.uint8)
    pictures = noise.repeat(8, axis=1).repeat(8, axis=2)
    moving = [np.roll(pictures[2 * step // frames], 4 * step, axis=1) for step in range(frames)]
    write_video(folder / "film.mp4", np.stack(moving), fps=24)
    content = (folder / "film.mp4").read_bytes()
    (folder / "film.mp4").unlink()
    for number in range(count):
        (folder / f"{number:06}.mp4").write_bytes(content + (16).to_bytes(4, "big") + b"free" + b"%08d" % number)


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Watcher:
    """Reads the resident memory of all workers while a run goes on, in MB."""

    def __init__(self) -> None:
        self.readings: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        import multiprocessing

        while not self._stopped.wait(0.5):
            sizes = [self._size(child.pid) for child in multiprocessing.active_children()]
            self.readings += [max(sizes)] if sizes else []

    @staticmethod
    def _size(pid: int | None) -> float:
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
        except (OSError, IndexError):
            return 0.0


def run(videos: Path, output: Path, workers: int) -> dict[str, Any]:
    """One run; how fast the first and the last tenth of the files went, and what the largest worker came to need."""
    job = Job(videos, output / "work", load("any-size", OPEN))
    job.work.mkdir(parents=True)
    began, spent = time.perf_counter(), cpu_s()
    with Watcher() as watcher:
        curate(job, Layout(output), ProcessEngine(workers), lambda what, things, total: things)
    scanned = list((output / "work/scans").rglob("*.zip"))
    costs = sorted((path.stat().st_mtime_ns, _cost(path)) for path in scanned)
    tenth = max(1, len(costs) // 10)
    settled = watcher.readings[len(watcher.readings) // 10 :]
    return {
        "workers": workers,
        "files": len(scanned),
        "wall_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(cpu_s() - spent, 2),
        "scan_cpu_s_first_tenth": round(sum(cost for _, cost in costs[:tenth]), 3),
        "scan_cpu_s_last_tenth": round(sum(cost for _, cost in costs[-tenth:]), 3),
        "worker_mb_early": round(max(settled[: max(1, len(settled) // 5)], default=0.0), 1),
        "worker_mb_late": round(max(settled[-max(1, len(settled) // 5) :], default=0.0), 1),
    }


def _cost(path: Path) -> float:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return float(json.loads(archive.read("times.json"))["cpu_s"])


def scaling(root: Path, files: int) -> dict[str, Any]:
    """The same 720p files by one worker and by two, and by as many plain decoders, which is what the machine allows."""
    make_files(root / "large", files, 720, 1280, 96)
    started = {workers: start_s(workers) for workers in (1, 2)}
    runs = [run(root / "large", root / f"large-{workers}", workers) for workers in (1, 2)]
    decoding = [decoding_s(sorted((root / "large").iterdir()), workers) for workers in (1, 2)]
    whole = [run["wall_s"] for run in runs]
    rates = [run["wall_s"] - started[run["workers"]] for run in runs]
    return {
        "start_s": started,
        "runs": runs,
        "decoding_only_s": decoding,
        "two_to_one (at least 1.8)": round(whole[0] / whole[1], 2),
        "two_to_one_without_start": round(rates[0] / rates[1], 2),
        "two_to_one_decoding_only": round(decoding[0] / decoding[1], 2),
    }


def start_s(workers: int) -> float:
    """Wall seconds until a pool has started, imported what a scan needs, and ended."""
    began = time.perf_counter()
    list(ProcessEngine(workers).run(idle, list(range(workers))))
    return round(time.perf_counter() - began, 2)


def idle(number: int) -> int:
    """An item that costs nothing; the worker imports this module, and with it all that a scan needs."""
    return number


def decoding_s(files: list[Path], workers: int) -> float:
    """Wall seconds to decode all files in `workers` processes and do nothing else."""
    began = time.perf_counter()
    list(ProcessEngine(workers).run(decode, files))
    return round(time.perf_counter() - began, 2)


def decode(path: Path) -> int:
    """Frames of a film."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def small_files(root: Path, files: int) -> dict[str, Any]:
    """Many small files by two workers, and the same command again."""
    make_files(root / "small", files, 96, 160, 32)
    small = run(root / "small", root / "small-2", 2)
    again = time.perf_counter(), cpu_s()
    job = Job(root / "small", root / "small-2/work", load("any-size", OPEN))
    curate(job, Layout(root / "small-2"), ProcessEngine(2), lambda what, things, total: things)
    now = time.perf_counter(), cpu_s()
    resumed = {
        f"resumed_{name}_s": round(end - begin, 2) for name, begin, end in zip(("wall", "cpu"), again, now, strict=True)
    }
    return {**small, **resumed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("workers", "small"), help="one part only")
    parser.add_argument("--files", type=int, default=10_000, help="small files (160x96)")
    parser.add_argument("--large-files", type=int, default=200, help="files of 1280x720 for one worker beside two")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "curate_run.json")
    options = parser.parse_args()
    from floor import machine  # here, since workers import this module, and need no torch

    result = json.loads(options.output.read_text()) if options.part and options.output.exists() else {}
    result["machine"] = machine()
    with tempfile.TemporaryDirectory() as folder:
        if options.part != "small":
            result["workers"] = scaling(Path(folder), options.large_files)
        if options.part != "workers":
            result["small_files"] = small_files(Path(folder), options.files)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
