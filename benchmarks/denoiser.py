"""One denoising step of a U-Net for video: Latent-Shift, its baseline and diffusers' networks, side by side in one run.

python benchmarks/denoiser.py --size zoo --repeats 30
python benchmarks/denoiser.py --size sd15 --repeats 5
python benchmarks/denoiser.py --size sd15 --repeats 12 --cases shift      # what a few per cent need
python benchmarks/denoiser.py --size sd15 --repeats 3 --frames 8 16 32 64
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from diffusers import UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel
from floor import LowerBound, copy_rate, machine, matrix_rate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from timeloom.device import keep_memory
from timeloom.models.shift import ShiftMechanism
from timeloom.models.temporal_mechanism import TemporalMechanism
from timeloom.models.unet import VideoUNet
from timeloom.options import parse


@dataclass(frozen=True)
class Options:
    """Time one denoising step of VideoUNet without time, with temporal shift and with Latent-VDM's attention, and of
    diffusers' U-Nets: frame by frame, AnimateDiff's and ModelScope's."""

    size: Literal["zoo", "sd15", "tiny"] = "zoo"
    """zoo: the U-Net of digits-shift. sd15: Stable Diffusion 1.5's with random weights. tiny: to try this file out."""
    repeats: int = 20
    """Rounds; each round runs every case once, in turn, beginning with another one than the round before."""
    cases: str = ""
    """Only cases with this in their names, and those that all are compared with. Default: all."""
    output: Path | None = None
    """JSON file. Default: benchmarks/results/denoiser_SIZE.json; _CASES or _frames stands behind SIZE where given."""
    memory: bool = True
    """Also run each case once in a process of its own and report that process's peak memory."""
    frames: list[int] = field(default_factory=list)
    """Time the temporal shift, and no other case, at these numbers of frames instead."""


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


# The cases. All but the last three run on the same weights: a shift adds none.

DIFFUSERS = "diffusers, frame by frame"
NONE = "VideoUNet none"
SHIFT = "VideoUNet shift residual_end"
MECHANISMS: dict[str, Callable[[], TemporalMechanism]] = {
    NONE: TemporalMechanism,
    SHIFT: lambda: ShiftMechanism(0.25, "residual_end"),
    "VideoUNet shift residual_start": lambda: ShiftMechanism(0.25, "residual_start"),
}
VDM = "VideoUNet attention (Latent-VDM)"
MOTION = "UNetMotionModel (AnimateDiff)"
MODELSCOPE = "UNet3DConditionModel (ModelScope)"
CASES = (DIFFUSERS, *MECHANISMS, VDM, MOTION, MODELSCOPE)

Step = Callable[[], Tensor]
"""One denoising step, answering (B, F, C, H, W)."""


@contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """Networks and inputs made inside are of this dtype from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(case: str, size: Size) -> nn.Module:
    """The network of a case; on whatever device is the default."""
    if case in MECHANISMS:
        return VideoUNet(**size.config)
    if case == VDM:
        return VideoUNet(**size.config, temporal="attention")
    if case == DIFFUSERS:
        return UNet2DConditionModel(**size.config)
    kind, network = {MOTION: ("Motion", UNetMotionModel), MODELSCOPE: ("3D", UNet3DConditionModel)}[case]
    config = {name: value for name, value in size.config.items() if name != "attention_head_dim"}
    for name in ("down_block_types", "up_block_types"):
        if name in config:
            config[name] = tuple(block.replace("2D", kind) for block in config[name])
    heads = size.config["attention_head_dim"]  # the number of heads, whatever its name: see diffusers' U-Net
    if case == MOTION:
        return network(**config, num_attention_heads=heads, motion_num_attention_heads=heads)
    return network(**config, attention_head_dim=min(64, min(size.config["block_out_channels"]) // heads))


def random_weights(network: nn.Module) -> nn.Module:
    """Weights that keep activations of order one, none of them computed twice."""
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            parameter.uniform_(-bound, bound)
        else:
            parameter.zero_()
    for module in network.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) and module.weight is not None:
            nn.init.ones_(module.weight)
    for buffer in network.buffers():
        buffer.zero_()
    return network


def random_inputs(size: Size) -> tuple[Tensor, Tensor]:
    return torch.randn(size.latents_BFCHW, dtype=size.dtype), torch.randn(size.text_BLD, dtype=size.dtype)


def step_of(case: str, network: nn.Module, latents: Tensor, text: Tensor) -> Step:
    """How each network is called."""
    frames = latents.shape[1]
    text_of_each_frame = text.repeat_interleave(frames, dim=0)

    def frame_by_frame() -> Tensor:
        noise = network(latents.flatten(0, 1), 500, encoder_hidden_states=text_of_each_frame).sample
        return noise.unflatten(0, (-1, frames))

    def with_mechanism() -> Tensor:
        if mechanism is not None:
            network.temporal_mechanism = mechanism
        return network(latents, 500, text).sample

    def channels_first() -> Tensor:
        own_text = text_of_each_frame if case == MOTION else text
        return network(latents.transpose(1, 2), 500, encoder_hidden_states=own_text).sample.transpose(1, 2)

    mechanism = MECHANISMS[case]() if case in MECHANISMS else None
    return {DIFFUSERS: frame_by_frame, MOTION: channels_first, MODELSCOPE: channels_first}.get(case, with_mechanism)


class Networks:
    """The networks of one size, made when they are first asked for."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.latents, self.text = random_inputs(size)

    @cached_property
    def shared(self) -> nn.Module:
        with made_in(self.size.dtype), torch.device("meta"):
            unet = build(NONE, self.size)
        return random_weights(unet)

    def step(self, case: str) -> Step:
        if case in MECHANISMS:
            network = self.shared
        else:
            with made_in(self.size.dtype), torch.device("meta"):
                network = build(case, self.size)
            if case == DIFFUSERS:
                network.eval().load_state_dict(self.shared.state_dict(), assign=True)
            else:
                network = random_weights(network)
        return step_of(case, network, self.latents, self.text)


def count_operations(size: Size, case: str) -> list[tuple[int, int]]:
    """Operations of one step, without computing it."""
    with FakeTensorMode(), made_in(size.dtype), torch.no_grad():
        step = step_of(case, build(case, size).eval(), *random_inputs(size))
        with LowerBound() as bound:
            step()
    return bound.operations


# Measuring


def peak_memory(size_name: str, case: str) -> int:
    """Peak resident bytes of this process after one step of one case."""
    with torch.inference_mode():
        Networks(size_named(size_name)).step(case)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memories(size_name: str, names: list[str]) -> dict[str, int]:
    """Peak memory of each case, one process after the other."""
    peaks = {}
    for case in names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[case] = pool.submit(peak_memory, size_name, case).result()
    return peaks


def interleaved_times(cases: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each case in each round; one round beforehand does not count."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for i in range(repeats + 1):
        for name in names:
            start = time.perf_counter()
            cases[name]()
            if i:
                times[name].append(time.perf_counter() - start)
        names.append(names.pop(0))
    return times


def measure(size_name: str, repeats: int, memory: bool, names: list[str]) -> dict[str, Any]:
    """Everything about one size, ready for JSON. Rates are the best seen before and after the timing."""
    size = size_named(size_name)
    peaks = peak_memories(size_name, names) if memory else {}  # first: a child starts with its parent's peak
    counted_cases = (NONE, DIFFUSERS, VDM, MOTION, MODELSCOPE)
    operations = {name: count_operations(size, name) for name in counted_cases}
    matrix, copy = matrix_rate(size.dtype), copy_rate()
    with torch.inference_mode():
        networks = Networks(size)
        cases = {name: networks.step(name) for name in names}
        reference = cases[NONE]()
        difference = (cases[DIFFUSERS]() - reference).norm() / reference.norm()
        times = interleaved_times(cases, repeats)
    matrix, copy = max(matrix, matrix_rate(size.dtype)), max(copy, copy_rate())
    floor_s = sum(max(flops / matrix, moved / copy) for flops, moved in operations[NONE])
    results = {}
    for name, seconds in times.items():
        counted = operations.get(name, operations[NONE])
        results[name] = {
            "median_s": statistics.median(seconds),
            "fastest_s": min(seconds),
            "ratio_to_none": statistics.median(a / b for a, b in zip(seconds, times[NONE], strict=True)),
            "ratio_to_shift": statistics.median(a / b for a, b in zip(seconds, times[SHIFT], strict=True)),
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


def measure_frames(size_name: str, repeats: int, frames: list[int]) -> dict[str, Any]:
    """The temporal shift against the number of frames, ready for JSON."""
    keep_memory(torch.device("cpu"))  # as `timeloom generate` does
    size = size_named(size_name)
    batch, _, *rest = size.latents_BFCHW
    cases: dict[str, Step] = {}
    with torch.inference_mode():
        unet = Networks(size).shared
        for number in frames:
            inputs = random_inputs(replace(size, latents_BFCHW=(batch, number, *rest)))
            cases[str(number)] = step_of(SHIFT, unet, *inputs)
        times = interleaved_times(cases, repeats)
    first = times[str(frames[0])]
    return {
        "benchmark": "denoiser, frames",
        "size": size_name,
        "case": SHIFT,
        "dtype": str(size.dtype).removeprefix("torch."),
        "repeats": repeats,
        "machine": machine(),
        "frames": {
            name: {
                "median_s": statistics.median(seconds),
                "a_frame_to_first": statistics.median(
                    (a / int(name)) / (b / frames[0]) for a, b in zip(seconds, first, strict=True)
                ),
            }
            for name, seconds in times.items()
        },
    }


def print_frames(report: dict[str, Any]) -> None:
    print(f"{report['size']}, {report['case']}, {report['machine']['threads']} threads")
    for name, row in report["frames"].items():
        print(f"{name:>4} frames{row['median_s'] * 1e3:>10.1f} ms{row['a_frame_to_first']:>8.3f} a frame, to the first")


def print_table(report: dict[str, Any]) -> None:
    rates = f"{report['matrix_flops_per_s'] / 1e9:.0f} GFLOP/s, {report['copy_bytes_per_s'] / 1e9:.1f} GB/s"
    print(f"{report['size']} on {report['machine']['processor']}, {report['machine']['threads']} threads, {rates}")
    print(f"{'':34}{'median':>10}{'to none':>9}{'to shift':>9}{'to floor':>9}{'GFLOP':>8}{'peak MB':>9}")
    for name, row in report["cases"].items():
        peak = "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:.0f}"
        ratios = f"{row['ratio_to_none']:>9.3f}{row['ratio_to_shift']:>9.3f}{row['ratio_to_floor']:>9.2f}"
        print(f"{name:34}{row['median_s'] * 1e3:>7.1f} ms{ratios}{row['flops'] / 1e9:>8.1f}{peak:>9}")


def main(args: list[str]) -> int:
    options = parse(Options, args, prog="python benchmarks/denoiser.py")
    if options.frames:
        report = measure_frames(options.size, options.repeats, options.frames)
        print_frames(report)
    else:
        names = [name for name in CASES if name in (DIFFUSERS, NONE, SHIFT) or options.cases in name]
        report = measure(options.size, options.repeats, options.memory, names)
        print_table(report)
    part = "frames" if options.frames else options.cases
    name = f"denoiser_{options.size}{f'_{part}' if part else ''}.json"
    output = options.output or Path(__file__).parent / "results" / name
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
