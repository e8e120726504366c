"""One denoising step of the U-Net: ours against diffusers', and what the temporal shift costs, side by side in one run.

python benchmarks/denoiser.py --size zoo --repeats 30
python benchmarks/denoiser.py --size sd15 --repeats 7
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

import timeloom
from timeloom.models.shift import ShiftMechanism
from timeloom.models.temporal_mechanism import TemporalMechanism
from timeloom.models.unet import VideoUNet
from timeloom.options import parse


@dataclass(frozen=True)
class Options:
    """Time one denoising step of diffusers' U-Net frame by frame, and of VideoUNet without and with temporal shift."""

    size: Literal["zoo", "sd15", "tiny"] = "zoo"
    """zoo: the U-Net of digits-shift. sd15: Stable Diffusion 1.5's with random weights. tiny: to try this file out."""
    repeats: int = 20
    """Rounds; each round runs every case once, in turn."""
    output: Path | None = None
    """JSON file. Default: benchmarks/results/denoiser_SIZE.json."""
    memory: bool = True
    """Also run each case once in a process of its own and report that process's peak memory."""


@dataclass(frozen=True)
class Size:
    """What is measured: a network and the shapes of its inputs."""

    config: dict[str, Any]
    latents_BFCHW: tuple[int, ...]
    text_BLD: tuple[int, ...]
    dtype: torch.dtype


def size_named(name: str) -> Size:
    if name == "zoo":
        recipe = yaml.safe_load((resources.files("timeloom") / "recipes/digits/image.yaml").read_text(encoding="utf-8"))
        return Size(recipe["model"]["unet"], (1, 16, 4, 8, 8), (1, 32, 96), torch.float32)
    if name == "sd15":
        config = {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        }
        return Size(config, (1, 16, 4, 32, 32), (1, 77, 768), torch.bfloat16)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    widths = {"block_out_channels": (8,), "norm_num_groups": 4, "cross_attention_dim": 8, "attention_head_dim": 4}
    return Size({**blocks, **widths, "layers_per_block": 1}, (1, 2, 4, 4, 4), (1, 3, 8), torch.float32)


# The cases. All run on the same weights: VideoUNet's parameters are diffusers' own, and a mechanism adds none.

DIFFUSERS = "diffusers, frame by frame"
NONE = "VideoUNet none"
MECHANISMS: dict[str, Callable[[], TemporalMechanism]] = {
    NONE: TemporalMechanism,
    "VideoUNet shift residual_end": lambda: ShiftMechanism(0.25, "residual_end"),
    "VideoUNet shift residual_start": lambda: ShiftMechanism(0.25, "residual_start"),
}
CASES = (DIFFUSERS, *MECHANISMS)


@contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """Networks and inputs made inside are of this dtype from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_network(size: Size) -> VideoUNet:
    """A network with weights that keep activations of order one, none of them computed twice."""
    with made_in(size.dtype), torch.device("meta"):
        unet = VideoUNet(**size.config)
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            parameter.uniform_(-bound, bound)
    for module in unet.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return unet


def random_inputs(size: Size) -> tuple[Tensor, Tensor]:
    return torch.randn(size.latents_BFCHW, dtype=size.dtype), torch.randn(size.text_BLD, dtype=size.dtype)


def cases_on(unet: VideoUNet, size: Size) -> dict[str, Callable[[], Tensor]]:
    """One denoising step of each case, as a function that answers (B, F, C, H, W)."""
    latents, text = random_inputs(size)
    frames = latents.shape[1]
    with torch.device("meta"):
        peer = UNet2DConditionModel(**size.config).eval()
    peer.load_state_dict(unet.state_dict(), assign=True)

    def frame_by_frame() -> Tensor:
        text_of_each_frame = text.repeat_interleave(frames, dim=0)
        noise = peer(latents.flatten(0, 1), 500, encoder_hidden_states=text_of_each_frame).sample
        return noise.unflatten(0, (-1, frames))

    def with_mechanism(build: Callable[[], TemporalMechanism]) -> Callable[[], Tensor]:
        mechanism = build()

        def step() -> Tensor:
            unet.temporal_mechanism = mechanism
            return unet(latents, 500, text).sample

        return step

    return {DIFFUSERS: frame_by_frame} | {name: with_mechanism(build) for name, build in MECHANISMS.items()}


# What the step must at least cost


class LowerBound(TorchDispatchMode):
    """Arithmetic and memory traffic of every convolution, matrix product and attention, were all else fused into them.

    Each reads its inputs and its weights once and writes its output once.
    """

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, int]] = []
        """Floating-point operations and bytes of each."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        kind = function._overloadpacket
        flops = None
        if kind is self.attention:
            flops = sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif kind in flop_registry:
            flops = flop_registry[kind](*args, **(kwargs or {}), out_val=result)
        if flops is not None:
            tensors = [tensor for tensor in tree_iter((args, kwargs, result)) if isinstance(tensor, Tensor)]
            self.operations.append((flops, sum(tensor.numel() * tensor.element_size() for tensor in tensors)))
        return result


def count_operations(size: Size, frame_by_frame: bool) -> list[tuple[int, int]]:
    """Operations of one step, without computing it."""
    with FakeTensorMode(), made_in(size.dtype), torch.no_grad():
        latents, text = random_inputs(size)
        if frame_by_frame:
            peer = UNet2DConditionModel(**size.config)
            latents, text = latents.flatten(0, 1), text.repeat_interleave(latents.shape[1], dim=0)
            with LowerBound() as bound:
                peer(latents, 500, encoder_hidden_states=text)
        else:
            unet = VideoUNet(**size.config)
            with LowerBound() as bound:
                unet(latents, 500, text)
    return bound.operations


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_rate(dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    out = torch.empty_like(a)
    return 2 * side**3 / best_time(lambda: torch.mm(a, b, out=out), 6)


def copy_rate(megabytes: int = 256) -> float:
    """Bytes a second, read and written together, of a copy that no cache holds."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / best_time(lambda: target.copy_(source), 6)


# Measuring


def peak_memory(size_name: str, case: str) -> int:
    """Peak resident bytes of this process after one step of one case."""
    size = size_named(size_name)
    with torch.inference_mode():
        cases_on(random_network(size), size)[case]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memories(size_name: str) -> dict[str, int]:
    """Peak memory of each case, one process after the other."""
    peaks = {}
    for case in CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[case] = pool.submit(peak_memory, size_name, case).result()
    return peaks


def interleaved_times(cases: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each case in each round; one round beforehand does not count."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(repeats + 1):
        for name, step in cases.items():
            start = time.perf_counter()
            step()
            if i:
                times[name].append(time.perf_counter() - start)
    return times


def machine() -> dict[str, Any]:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timeloom": timeloom.__version__,
    }


def measure(size_name: str, repeats: int, memory: bool) -> dict[str, Any]:
    """Everything about one size, ready for JSON. Rates are the best seen before and after the timing."""
    size = size_named(size_name)
    peaks = peak_memories(size_name) if memory else {}  # first: a child starts with its parent's peak
    operations = {name: count_operations(size, name == DIFFUSERS) for name in (DIFFUSERS, NONE)}
    matrix, copy = matrix_rate(size.dtype), copy_rate()
    with torch.inference_mode():
        cases = cases_on(random_network(size), size)
        reference = cases[NONE]()
        difference = (cases[DIFFUSERS]() - reference).norm() / reference.norm()
        times = interleaved_times(cases, repeats)
    matrix, copy = max(matrix, matrix_rate(size.dtype)), max(copy, copy_rate())
    floor_s = sum(max(flops / matrix, moved / copy) for flops, moved in operations[NONE])
    results = {}
    for name, seconds in times.items():
        counted = operations[DIFFUSERS if name == DIFFUSERS else NONE]
        results[name] = {
            "median_s": statistics.median(seconds),
            "fastest_s": min(seconds),
            "ratio_to_none": statistics.median(a / b for a, b in zip(seconds, times[NONE], strict=True)),
            "ratio_to_floor": statistics.median(seconds) / floor_s,
            "flops": sum(flops for flops, _ in counted),
            "bytes_at_least": sum(moved for _, moved in counted),
            "peak_memory_bytes": peaks.get(name),
        }
    return {
        "benchmark": "denoiser",
        "size": size_name,
        "latents_BFCHW": size.latents_BFCHW,
        "text_BLD": size.text_BLD,
        "dtype": str(size.dtype).removeprefix("torch."),
        "repeats": repeats,
        "machine": machine(),
        "matrix_flops_per_s": matrix,
        "copy_bytes_per_s": copy,
        "floor_s": floor_s,
        "difference_diffusers_none": difference.item(),
        "cases": results,
    }


def print_table(report: dict[str, Any]) -> None:
    rates = f"{report['matrix_flops_per_s'] / 1e9:.0f} GFLOP/s, {report['copy_bytes_per_s'] / 1e9:.1f} GB/s"
    print(f"{report['size']} on {report['machine']['processor']}, {report['machine']['threads']} threads, {rates}")
    print(f"{'':32}{'median':>10}{'to none':>9}{'to floor':>9}{'GFLOP':>8}{'peak MB':>9}")
    for name, row in report["cases"].items():
        peak = "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:.0f}"
        ratios = f"{row['ratio_to_none']:>9.3f}{row['ratio_to_floor']:>9.2f}"
        print(f"{name:32}{row['median_s'] * 1e3:>7.1f} ms{ratios}{row['flops'] / 1e9:>8.1f}{peak:>9}")


def main(args: list[str]) -> int:
    options = parse(Options, args, prog="python benchmarks/denoiser.py")
    report = measure(options.size, options.repeats, options.memory)
    print_table(report)
    output = options.output or Path(__file__).parent / "results" / f"denoiser_{options.size}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
