"""Measuring: whether decoding hides behind the network, whether memory stays, how long a Fréchet step takes.

    python benchmarks/evaluate.py                      # some ten minutes on two cores
    python benchmarks/evaluate.py --part rate --device cuda --clips 512 --workers 16

`rate`: features of mp4 files (256 x 256, 16 frames) from end to end, against the same network on the same clips when
they already lie in memory, in turn. The weights are random: they cost what real ones cost. `memory`: the same path on
many small files, each number of them in a process of its own. `frechet`: the distance at 400 dimensions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from timeloom.data import write_video
from timeloom.data.write import replace_file
from timeloom.evaluate.windows import ReadWindow

# What needs torch is imported where it is used: a worker imports this file anew, and needs none of it, as it does not
# when it is the worker of `timeloom evaluate`.

FRAMES, FPS, DIMENSIONS = 16, 8.0, 400
RESULTS = Path(__file__).parent / "results" / "evaluate.json"


def write_clips(folder: Path, count: int, side: int) -> dict[str, Path]:
    """Files of something that moves, no two alike."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(count):
        path = folder / f"{number:06d}.mp4"
        files[path.name] = path
        if path.exists():
            continue
        ground = rng.integers(0, 200, (side // 8, side // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        clip = np.stack([np.roll(ground, step * 2, axis=1) for step in range(FRAMES)])
        write_video(path, clip, FPS, {"number": str(number)})
    return files


def rate(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Clips a second of the bare network and from files, rounds in turn."""
    import torch

    from timeloom.evaluate.feature_cache import FeatureCache
    from timeloom.evaluate.networks.extractor import Source
    from timeloom.evaluate.networks.i3d import I3D, I3DFeatures

    torch.manual_seed(0)
    network = I3DFeatures(I3D(), Source(Path("random"), "0" * 64), device=options.device, batch_size=8)
    files = write_clips(folder / "large", options.clips, 256)
    read = ReadWindow(FRAMES, FPS, 256, 256)
    began = time.perf_counter()
    clips = [read(path) for path in list(files.values())[: options.clips]]
    decode_s = (time.perf_counter() - began) / len(clips)
    batches = [np.stack(clips[start : start + 8]) for start in range(0, len(clips), 8)]
    network.features(batches[0])  # warm
    rounds: list[dict[str, float]] = []
    for turn in range(options.rounds):
        cache = FeatureCache(f"random {turn}", "features", "16 frames", folder / "kept")
        spent = {}
        for name in ("bare", "from files") if turn % 2 else ("from files", "bare"):
            start, cpu = time.perf_counter(), time.process_time()
            if name == "bare":
                for batch in batches:
                    network.features(batch)
            else:
                first: list[float] = []

                def extract(clips: np.ndarray, first: list[float] = first) -> np.ndarray:
                    first.append(time.perf_counter())
                    return network.features(clips)

                assert not cache.fill(files, read, extract, 8, workers=options.workers)
                spent["until the first batch s"] = first[0] - start
            spent[f"{name} s"], spent[f"{name} own cpu s"] = time.perf_counter() - start, time.process_time() - cpu
        rounds.append(spent)
    ratios = [spent["bare s"] / spent["from files s"] for spent in rounds]
    running = [spent["bare s"] / (spent["from files s"] - spent["until the first batch s"]) for spent in rounds]
    own = [spent["bare own cpu s"] / spent["from files own cpu s"] for spent in rounds]
    return {
        "clips": len(files),
        "workers": options.workers,
        "device": options.device,
        "decode_s_a_clip": decode_s,
        "bare_clips_per_s": len(files) / median(spent["bare s"] for spent in rounds),
        "from_files_clips_per_s": len(files) / median(spent["from files s"] for spent in rounds),
        "rate_against_bare": median(ratios),
        "rate_against_bare_rounds": ratios,
        "rate_against_bare_after_the_start": median(running),
        "own_cpu_against_bare": median(own),
        "rounds": rounds,
    }


class Projected:
    """Any 400 numbers of a clip, for what does not depend on the network."""

    def __init__(self) -> None:
        self.weights = np.random.default_rng(0).normal(size=(FRAMES * 48, DIMENSIONS)).astype(np.float32)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        small = clips[:, :, 2::8, 2::8].reshape(len(clips), -1)[:, : FRAMES * 48]
        return small.astype(np.float32) @ self.weights / 1e4


def one_memory(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Peak memory of this process: features of `count` files, then an FVD with its interval."""
    from timeloom.evaluate.feature_cache import FeatureCache
    from timeloom.evaluate.metrics import Moments, find_metric

    files = write_clips(folder / "small", count, 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    cache = FeatureCache("projected", "features", "16 frames", folder / f"kept-{count}")
    assert not cache.fill(files, ReadWindow(FRAMES, FPS, 32, 32), Projected(), workers=workers)
    filled = time.perf_counter() - start
    features = cache.open(files)
    real = Moments.of(features.take(np.arange(min(256, count))))
    result = find_metric("fvd").measure(features, real)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    total = time.perf_counter() - start
    return {
        "clips": count,
        "measured": result.count,
        "before_mb": before / 1024,
        "peak_mb": peak / 1024,
        "largest_worker_mb": children / 1024,
        "features_s": filled,
        "fvd_with_interval_and_limit_s": total - filled,
    }


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each number of clips in a process of its own, so that none has another's peak."""
    write_clips(folder / "small", max(options.counts), 32)
    found = []
    for count in options.counts:
        words = ["--part", "one-memory", "--counts", str(count), "--workers", str(options.workers)]
        command = [sys.executable, __file__, *words, "--folder", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {"counts": found, "growth_mb": found[-1]["peak_mb"] - found[0]["peak_mb"]}


def frechet() -> dict[str, Any]:
    """Seconds of one distance, moments given."""
    from floor import best_time

    from timeloom.evaluate import frechet_distance_from_moments
    from timeloom.evaluate.metrics import Moments

    rng = np.random.default_rng(0)
    a, b = (Moments.of(rng.normal(size=(2048, DIMENSIONS))) for _ in range(2))
    parts = a.mean, a.covariance(), b.mean, b.covariance()
    return {"dimensions": DIMENSIONS, "seconds": best_time(lambda: frechet_distance_from_moments(*parts), 5)}


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "rate", "memory", "one-memory", "frechet"], default="all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=144, help="of the rate")
    parser.add_argument("--rounds", type=int, default=2, help="of the rate")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 8192], help="clips of the memory")
    parser.add_argument("--folder", type=Path, help="of the files; a temporary one unless said")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.part == "one-memory":
            print(json.dumps(one_memory(folder, options.counts[0], options.workers)))
            return 0
        from floor import machine

        known = json.loads(options.output.read_text()) if options.output.exists() else {}
        report = {**known, "machine": machine()}
        if options.part in ("all", "frechet"):
            report["frechet"] = frechet()
        if options.part in ("all", "rate"):
            report["rate"] = rate(options, folder)
        if options.part in ("all", "memory"):
            report["memory"] = memory(options, folder)
    replace_file(options.output, json.dumps(report, indent=2).encode())
    print(json.dumps({name: part for name, part in report.items() if name != "machine"}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
