"""Making frames of 344x192 four times larger: frames a second, operations, and the memory of a stream.

    python benchmarks/upscale.py
    python benchmarks/upscale.py --height 64 --width 64 --width-of-network 32 --no-memory

Side by side in one run: the network frame by frame in fp32 as anyone would write it, `Upscaler` as `timeloom upscale`
calls it in fp32 and bf16, and bicubic. Weights are random, which changes no time. Ratios are by processor time, so that
other work on the machine disturbs them little; the convolutions' own rate is measured in the same run. Frames a second
are by the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floor import machine

from timeloom.data import write_video
from timeloom.model_files import quiet_libraries
from timeloom.models.cost import measure
from timeloom.models.rcan import RCAN
from timeloom.upscaler import Upscaler, bicubic

NAIVE, FP32, BF16, BICUBIC = "naive fp32", "Upscaler fp32", "Upscaler bf16", "bicubic"


def network(width: int) -> RCAN:
    torch.manual_seed(0)
    return RCAN(width=width).eval()


def quiet(network: RCAN, dtype: torch.dtype) -> RCAN:
    """In these numbers and the memory format that `Upscaler.from_pretrained` chooses."""
    with quiet_libraries():
        return network.to(dtype).to(memory_format=torch.channels_last)


def flops(options: argparse.Namespace) -> int:
    """Of one frame."""
    on_meta = network(options.width_of_network).to("meta")
    frame = torch.empty(1, 3, options.height, options.width, device="meta")
    return measure(on_meta, lambda: on_meta(frame)).flops


def convolution_rate(channels: int, dtype: torch.dtype, seconds: Callable[[], float]) -> float:
    """Operations a second of a 3x3 convolution that fits the cache, the best of a few."""
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
    x = torch.randn(1, channels, 96, 96).to(dtype).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.no_grad():
        for _ in range(12):
            started = seconds()
            for _ in range(4):
                layer(x)
            times.append((seconds() - started) / 4)
    return 2 * 9 * channels**2 * 96**2 / min(times)


def cases(options: argparse.Namespace, frames: np.ndarray) -> dict[str, Callable[[], object]]:
    """Each makes all frames larger."""
    width = options.width_of_network
    plain = network(width)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255

    def naive() -> None:
        with torch.no_grad():
            for image in images:  # the network's own lines without its memory format
                x = plain.head(plain.sub_mean(image[None].contiguous() * plain.config.pixel_range))
                plain.reconstruct(x + plain.body(x)).clamp(0, 1)

    def ours(dtype: torch.dtype) -> Callable[[], object]:
        upscaler = Upscaler(quiet(network(width), dtype))
        return lambda: upscaler(images)

    return {
        NAIVE: naive,
        FP32: ours(torch.float32),
        BF16: ours(torch.bfloat16),
        BICUBIC: lambda: bicubic(images, plain.config.scale),
    }


def peak_memory(options: argparse.Namespace, frames: int, precision: str) -> float:
    """GiB of a process that streams a video of so many frames."""
    with tempfile.TemporaryDirectory() as folder:
        Upscaler(network(options.width_of_network)).save_pretrained(folder)
        source = Path(folder) / "in.mp4"
        write_video(source, np.zeros((frames, options.height, options.width, 3), np.uint8), fps=8)
        words = ["upscale", str(source), f"{folder}/out.mp4", "--model", folder, "--precision", precision, "--quiet"]
        code = (
            "import resource, sys; from timeloom.cli import main; assert main(sys.argv[1:]) == 0; "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, *words, "--device", "cpu"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 2**20


def peak_memories(options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """GiB by precision and number of frames."""
    return {
        precision: {count: round(peak_memory(options, count, precision), 3) for count in options.lengths}
        for precision in ("fp32", "bf16")
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=344)
    parser.add_argument("--width-of-network", type=int, default=64, help="channels; 64 is the paper's")
    parser.add_argument("--frames", type=int, default=1, help="made larger in each round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--lengths", type=int, nargs=2, default=(4, 48), help="frames of the streams for memory")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "upscale.json")
    options = parser.parse_args(arguments)
    peaks = {} if options.no_memory else peak_memories(options)  # first: a child begins with its parent's peak
    seconds = time.process_time
    size = (options.frames, options.height, options.width, 3)
    frames = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    runs, names = cases(options, frames), (NAIVE, FP32, BF16, BICUBIC)
    times: dict[str, list[float]] = {name: [] for name in names}
    walls: dict[str, list[float]] = {name: [] for name in names}
    for name in runs:
        runs[name]()  # the first call chooses algorithms
    for _ in range(options.repeats):  # in turn, so that what disturbs one disturbs all
        for name, run in runs.items():
            started, on_the_wall = seconds(), time.perf_counter()
            run()
            times[name].append((seconds() - started) / options.frames)
            walls[name].append((time.perf_counter() - on_the_wall) / options.frames)
    operations = flops(options)
    rates = {
        name: convolution_rate(options.width_of_network, dtype, seconds)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    result: dict[str, Any] = {
        "size": [options.width, options.height],
        "network": {"blocks": 8, "width": options.width_of_network, "scale": 4},
        "flops_a_frame": operations,
        "convolution_flops_a_second": {name: round(rate) for name, rate in rates.items()},
        "cases": {},
        "machine": machine(),
    }
    for name, own in times.items():
        rate = rates["bf16" if name == BF16 else "fp32"]
        result["cases"][name] = {
            "cpu_s_a_frame": round(statistics.median(own), 4),
            "frames_a_second": round(1 / statistics.median(walls[name]), 3),
            "faster_than_naive": round(statistics.median(n / o for n, o in zip(times[NAIVE], own, strict=True)), 3),
            "share_of_convolution_rate": None
            if name == BICUBIC
            else round(operations / statistics.median(own) / rate, 3),
        }
    if peaks:
        result["stream_peak_gib"] = peaks
    print(json.dumps(result, indent=2))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
