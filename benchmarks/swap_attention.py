"""Swap-CA: windows against global attention, and what it costs a denoising step, side by side in one run.

python benchmarks/swap_attention.py                     # one layer at 16, 32, 64 frames of 43x24; a step of digits-swap
python benchmarks/swap_attention.py --size paper --repeats 3 --device cuda      # layer and step as wide as the paper's
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo
import yaml
from floor import machine
from torch import Tensor, nn

from timeloom.data.write import replace_file
from timeloom.device import choose_device
from timeloom.model_files import quiet_libraries
from timeloom.models.cost import measure
from timeloom.models.families import FAMILIES
from timeloom.models.swap import SwapAttention
from timeloom.models.unet import VideoUNet
from timeloom.options import parse

ROWS, COLUMNS = 24, 43
"""Of latents at the paper's 344x192 pixels."""
MAX_STEP = 1.15
"""What a step with Swap-CA may cost, as a multiple of the same network with plain addition."""


@dataclass(frozen=True)
class Options:
    """Time Swap-CA in windows and with global attention, and a denoising step with plain addition in its place."""

    size: Literal["zoo", "paper", "tiny"] = "zoo"
    """zoo: the U-Net of digits-swap, a layer of 64 channels. paper: VideoFactory's, 320. tiny: to try this file out."""
    frames: tuple[int, ...] = (16, 32, 64)
    """Of the layer, whose latents are 43x24."""
    repeats: int = 5
    """Rounds; each round runs every case once, in turn."""
    count_only: bool = False
    """Count operations and bytes, and time nothing."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes an accelerator where there is one."""
    output: Path | None = None
    """JSON file. Default: benchmarks/results/swap_attention_SIZE.json."""


@dataclass(frozen=True)
class Size:
    """What is measured: a layer, a network, and the shapes of its inputs."""

    channels: int
    heads: int
    config: dict[str, Any]
    swap: dict[str, Any]
    latents_BFCHW: tuple[int, ...]
    text_BLD: tuple[int, ...]
    rows: int = ROWS
    columns: int = COLUMNS


def size_named(name: str) -> Size:
    if name == "paper":
        return Size(320, 5, FAMILIES["modelscope"]["unet"], {}, (1, 16, 4, ROWS, COLUMNS), (1, 77, 1024))
    folder = resources.files("timeloom") / "recipes/digits"
    image, video = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("image", "swap_attend"))
    config, swap = image["model"]["unet"], video["model"]["swap"]
    if name == "zoo":
        return Size(64, 1, config, swap, (1, 16, 4, 8, 14), (1, 32, 96))
    small = {**config, "block_out_channels": [8, 8, 8], "layers_per_block": 1}
    return Size(8, 1, small, {**swap, "width": 1.0}, (1, 4, 4, 4, 6), (1, 3, 96), rows=5, columns=7)


def layers(size: Size) -> dict[str, Callable[[], SwapAttention]]:
    """One Swap-CA as each case has it."""
    windows = {"windows": ((8, 8, 8), False), "windows, shifted": ((8, 8, 8), True), "global": ((0, 0, 0), False)}
    groups = min(32, size.channels // 2)

    def layer(window: tuple[int, int, int], shifted: bool) -> SwapAttention:
        return SwapAttention(size.channels, size.heads, window=window, shifted=shifted, groups=groups)

    return {name: lambda options=options: layer(*options) for name, options in windows.items()}  # type: ignore[misc]


def networks(size: Size) -> dict[str, Callable[[], VideoUNet]]:
    """The U-Net as each case has it."""
    cases = {"plain addition": {"queries": "none"}, "Swap-CA": {}, "Swap-CA, global": {"window": [0, 0, 0]}}
    return {
        name: lambda changes=changes: VideoUNet(**size.config, temporal="swap", swap={**size.swap, **changes})  # type: ignore[misc]
        for name, changes in cases.items()
    }


Call = Callable[[nn.Module, torch.device, torch.dtype], Tensor]


def call_of_layer(size: Size, frames: int) -> Call:
    def call(layer: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
        shape = (frames, size.channels, size.rows, size.columns)
        x, y = (torch.ones(shape, device=device, dtype=dtype) for _ in range(2))
        return layer(x, y, frames)

    return call


def call_of_network(size: Size) -> Call:
    def call(unet: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
        latents = torch.ones(size.latents_BFCHW, device=device, dtype=dtype)
        return unet(latents, 500, torch.ones(size.text_BLD, device=device, dtype=dtype)).sample

    return call


@torch.no_grad()
def count(case: Callable[[], nn.Module], call: Call, dtype: torch.dtype) -> dict[str, Any]:
    """Operations, and the most bytes that intermediate results take at once, attention as fused."""
    meta = torch.device("meta")
    with meta:
        network = case().eval().to(dtype)
    cost = measure(network, lambda: call(network, meta, dtype))
    return {"flops": cost.flops, "peak_bytes": cost.peak_bytes}


@torch.inference_mode()
def time_cases(
    cases: dict[str, Callable[[], nn.Module]], call: Call, options: Options, dtype: torch.dtype
) -> dict[str, list[float]]:
    """Seconds of each case, round by round, after a round that warms up."""
    device = choose_device(options.device)
    torch.manual_seed(0)
    made = {name: case().eval().to(device, dtype) for name, case in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(options.repeats + 1):
        for name, network in made.items():
            began = time.perf_counter()
            call(network, device, dtype)
            if device.type != "cpu":
                torch.accelerator.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def compare(
    cases: dict[str, Callable[[], nn.Module]], call: Call, options: Options, dtype: torch.dtype
) -> dict[str, Any]:
    """Each case's numbers, with the median over rounds of its time against the first case's in the same round."""
    found = {name: count(case, call, dtype) for name, case in cases.items()}
    first = next(iter(cases))
    for numbers in found.values():
        numbers["flops_ratio"] = numbers["flops"] / found[first]["flops"]
    if not options.count_only:
        seconds = time_cases(cases, call, options, dtype)
        for name, times in seconds.items():
            ratios = [one / other for one, other in zip(times, seconds[first], strict=True)]
            found[name] |= {"seconds": statistics.median(times), "time_ratio": statistics.median(ratios)}
    return found


@torch.no_grad()
def graph_breaks() -> int:
    """Of the compiled network with Swap-CA, of the smallest size: the code is the same."""
    size = size_named("tiny")
    unet = networks(size)["Swap-CA"]().eval()
    torch.compiler.reset()
    return torch._dynamo.explain(unet)(torch.ones(size.latents_BFCHW), 500, torch.ones(size.text_BLD)).graph_break_count


@quiet_libraries()
def main(args: list[str]) -> int:
    """Measure, print, write."""
    options = parse(Options, args, prog="python benchmarks/swap_attention.py")
    size = size_named(options.size)
    dtype = torch.bfloat16 if options.size == "paper" else torch.float32
    report: dict[str, Any] = {
        "machine": machine() | {"device": str(choose_device(options.device)), "dtype": str(dtype)},
        "size": options.size,
        "repeats": options.repeats,
        "layer": {
            str(frames): compare(dict(layers(size)), call_of_layer(size, frames), options, dtype)
            for frames in options.frames
        },
        "step": compare(dict(networks(size)), call_of_network(size), options, dtype),
        "graph_breaks": graph_breaks(),
        "at_most": MAX_STEP,
    }
    for title, cases in (
        *((f"layer, {n} frames", each) for n, each in report["layer"].items()),
        ("step", report["step"]),
    ):
        for name, numbers in cases.items():
            timed = (
                f"  {1e3 * numbers['seconds']:10.1f} ms  x {numbers['time_ratio']:.2f}" if "seconds" in numbers else ""
            )
            print(
                f"{title:18} {name:18} {numbers['flops'] / 1e9:10.2f} GFLOP  x {numbers['flops_ratio']:.2f}"
                f"  {numbers['peak_bytes'] / 2**20:8.1f} MiB{timed}"
            )
    print(f"graph breaks: {report['graph_breaks']}")
    output = options.output or Path(__file__).parent / "results" / f"swap_attention_{options.size}.json"
    replace_file(output, (json.dumps(report, indent=1) + "\n").encode())
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
