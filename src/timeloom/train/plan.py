"""`--dry-run`: what a recipe will train and what that takes, counted on the meta device."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

from timeloom.data.clip import Window
from timeloom.data.order import Order
from timeloom.data.sources import open_sources
from timeloom.model_files import quiet_libraries
from timeloom.models.cost import measure
from timeloom.train.feed import first_captions
from timeloom.train.recipe import Recipe
from timeloom.train.stand_in import with_stand_ins
from timeloom.train.task import Batch, SampleRandom, Task
from timeloom.train.tasks import build_task
from timeloom.train.trainable import count_parameters, select_trainable, trainable_table

META = torch.device("meta")


@dataclass(frozen=True)
class Machines:
    """What a run is planned for."""

    devices: int
    tflops: float
    """Of one device at its best, in the recipe's precision; 1e12 operations a second."""
    mfu: float
    """The share of that which training reaches: model FLOPs utilization (PaLM, arXiv 2204.02311, App. B)."""
    price: float | None = None
    """Of an hour of one device, in any currency."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a training run. Bytes, but for the numbers of parameters and operations."""

    trained: int
    """Parameters."""
    frozen: dict[str, int]
    """Parameters of the networks that take part without learning."""
    state_bytes: int
    """fp32 weights, gradients, two Adam moments and the moving average of what is trained, and the frozen weights."""
    activation_bytes_per_sample: int
    """The most that lives between forward and backward pass; in bf16, half of what was counted in fp32."""
    flops_per_sample: int
    """Forward and backward pass, frozen networks included."""
    checkpoint_bytes: int
    model_bytes: int
    """Of the model folder at the end, in fp32."""
    frame_bytes: int
    """Of one window as the network sees it: uint8, uncompressed."""
    encoding_flops: int = 0
    """Of `flops_per_sample`, what frozen autoencoder and text encoder take: spared where their results are kept."""
    latent_bytes: int = 0
    """Of one window's latents, kept in fp16; 0 where a task makes none."""
    text_bytes: int = 0
    """Of one caption's features, kept in fp16; 0 where a task makes none."""
    stands_in_for: tuple[str, ...] = ()
    """Model folders that were not there, counted by the configs of the recipe's `model.family`."""

    def memory_bytes(self, samples: int, shards: int = 1) -> int:
        """State, that of what is trained cut into `shards`, and activations of so many samples at a time; libraries and
        work space come on top."""
        frozen = 4 * sum(self.frozen.values())
        return frozen + (self.state_bytes - frozen) // shards + samples * self.activation_bytes_per_sample

    def device_seconds(self, machines: Machines) -> float:
        """One device's time for one sample."""
        return self.flops_per_sample / (machines.tflops * 1e12 * machines.mfu)


@quiet_libraries()
def make_plan(recipe: Recipe) -> tuple[Plan, Table]:
    """The sizes, and a table of parameters. No weights are read, and no clips but the text encoder's captions.

    Raises:
        TimeloomError: a model folder that the recipe names is missing, and it names no `model.family`.
    """

    def captions() -> Iterator[str]:  # opens the sources only where a task wants to see captions
        source, _ = open_sources(recipe.data, recipe.seed)
        yield from first_captions(Order(source, recipe.data.window, recipe.seed, recipe.schedule.batch_size))

    with tempfile.TemporaryDirectory() as folder:
        planned, missing = with_stand_ins(recipe, Path(folder) / "model")
        task = build_task(planned, META)
        task.prepare(Path(folder), captions())
    select_trainable(task.network, recipe.model.learning)
    data = recipe.data
    batch = Batch.of(np.zeros((1, data.num_frames, data.height, data.width, 3), np.uint8), ["a clip"])
    cost = measure(
        task.network,
        lambda: task.loss(batch, SampleRandom(recipe.seed, [0]))[0],
        backward=True,
        frozen=task.frozen().values(),
    )
    trained = sum(parameter.numel() for parameter in task.network.parameters() if parameter.requires_grad)
    frozen = {name: count_parameters(network) for name, network in task.frozen().items()}
    averaged = recipe.ema_half_life_samples > 0
    state = 4 * (4 + averaged) * trained + 4 * (count_parameters(task.network) - trained + sum(frozen.values()))
    plan = Plan(
        trained=trained,
        frozen=frozen,
        state_bytes=state,
        activation_bytes_per_sample=cost.peak_bytes // (2 if recipe.precision == "bf16" else 1),
        flops_per_sample=cost.flops,
        checkpoint_bytes=4 * (count_parameters(task.network) + (2 + averaged) * trained),
        model_bytes=4 * (count_parameters(task.network) + sum(frozen.values())),
        frame_bytes=3 * data.num_frames * data.height * data.width,
        stands_in_for=tuple(missing),
        **_encoding(task, batch, data.window),
    )
    return plan, trainable_table(task.network, frozen)


def _encoding(task: Task, batch: Batch, window: Window) -> dict[str, int]:
    """What the frozen networks of a U-Net's training make of one sample: its operations, and the bytes to keep it."""
    encoder = task.encoder
    if encoder is None:
        return {}

    def encode() -> Tensor:
        assert encoder is not None
        encoder.text(batch.captions)
        return encoder.latents(batch)

    cost = measure(task.network, encode, frozen=task.frozen().values())
    return {
        "encoding_flops": cost.flops,
        "latent_bytes": encoder.bytes_of(window),
        "text_bytes": encoder.bytes_of_caption,
    }


def describe_plan(recipe: Recipe, plan: Plan, machines: Machines | None, clips: int | None) -> dict[str, Any]:
    """Everything that is planned, ready for JSON: FLOPs are operations, storage and memory bytes, money the price's.

    Args:
        clips: distinct clips of the data set; None counts every sample as one, the most that there can be.
    """
    schedule, devices = recipe.schedule, machines.devices if machines else 1
    total, share = schedule.total_samples, -(-schedule.batch_size // devices)
    at_once = min(schedule.micro_batch_size or share, share)
    distinct, shards = clips or total, devices if recipe.parallel == "fsdp" else 1
    kept = (recipe.data.windows or 0) * plan.latent_bytes + plan.text_bytes
    told: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "stands_in_for": list(plan.stands_in_for),
        "parameters": {"trained": plan.trained, "frozen": plan.frozen},
        "samples": {"total": total, "steps": -(-total // schedule.batch_size), "clips": clips},
        "flops": {
            "per_sample": plan.flops_per_sample,
            "encoding_per_sample": plan.encoding_flops,
            "total": total * plan.flops_per_sample,
        },
        "memory": {
            "state": plan.state_bytes,
            "activations_per_sample": plan.activation_bytes_per_sample,
            "samples_at_once": at_once,
            "shards": shards,
            "device": plan.memory_bytes(at_once, shards),
        },
        "storage": {
            "checkpoint": plan.checkpoint_bytes,
            "checkpoints": schedule.keep_checkpoints * plan.checkpoint_bytes,
            "model": plan.model_bytes,
            "frames_per_clip": plan.frame_bytes,
            "latents_per_window": plan.latent_bytes,
            "windows_per_clip": recipe.data.windows,
            "text_per_clip": plan.text_bytes,
            "latents_and_text": distinct * kept,
        },
    }
    if machines:
        seconds = plan.device_seconds(machines)
        hours = total * seconds / 3600
        told["time"] = {
            "devices": devices,
            "tflops": machines.tflops,
            "mfu": machines.mfu,
            "hours": hours / devices,
            "device_hours": hours,
            "device_seconds_per_sample": seconds,
            "samples_per_second": devices / seconds,
            "frame_bytes_per_second": devices / seconds * plan.frame_bytes,
        }
        if machines.price is not None:
            told["money"] = {"total": hours * machines.price, "per_sample": seconds / 3600 * machines.price}
    return told


def print_plan(recipe: Recipe, machines: Machines | None, clips: int | None = None, as_json: bool = False) -> None:
    """The resolved recipe, then the sizes, the storage, and the time and money on `machines`."""
    plan, parameters = make_plan(recipe)
    told = describe_plan(recipe, plan, machines, clips)
    if as_json:
        print(json.dumps(told))
        return
    console = Console()
    print(yaml.safe_dump(told["recipe"], sort_keys=False))
    if plan.stands_in_for:
        print(f"Not there yet, counted as {recipe.model.family}: {', '.join(plan.stands_in_for)}")
    console.print(parameters)
    summary = Table(show_header=False)
    for row in (*_size_rows(recipe, told), *(_time_rows(told, machines) if machines else ())):
        summary.add_row(*row)
    console.print(summary)


def _size_rows(recipe: Recipe, told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    samples, flops, memory, storage = (told[name] for name in ("samples", "flops", "memory", "storage"))
    clips = samples["clips"]
    seen = f", each of {clips:,} clips {samples['total'] / clips:.3g} times" if clips else ""
    yield "samples", f"{samples['total']:,} in {samples['steps']:,} steps{seen}"
    encoding = f", {_si(flops['encoding_per_sample'])}FLOP of them to encode it" if flops["encoding_per_sample"] else ""
    yield "operations", f"{_si(flops['per_sample'])}FLOP a sample{encoding}; {_si(flops['total'])}FLOP in all"
    yield (
        "memory of a device",
        f"{_binary(memory['state'])} of weights, gradients, optimizer and average"
        + (f", what is trained in {memory['shards']} shards, " if memory["shards"] > 1 else " ")
        + f"+ {memory['samples_at_once']} x {_binary(memory['activations_per_sample'])} of activations = "
        f"{_binary(memory['device'])}, and what the libraries take",
    )
    checkpoint, model = _binary(storage["checkpoint"]), _binary(storage["model"])
    yield "checkpoints", f"{recipe.schedule.keep_checkpoints} x {checkpoint}, and {model} of model at the end"
    yield "frames", f"{_binary(storage['frames_per_clip'])} a sample, uncompressed, as the network sees them"
    if storage["latents_and_text"]:
        latents, text = _binary(storage["latents_per_window"]), _binary(storage["text_per_clip"])
        what = f"{clips:,} clips" if clips else f"{samples['total']:,} clips, the most that so many samples can show"
        yield (
            "if encoded once",
            f"{storage['windows_per_clip'] or 0} windows of {latents} + text {text} a clip, in fp16: "
            f"{_binary(storage['latents_and_text'])} for {what}",
        )


def _time_rows(told: dict[str, Any], machines: Machines) -> Iterator[tuple[str, str]]:
    time = told["time"]
    yield "time", f"{time['hours']:,.1f} hours on {time['devices']} devices, {time['device_hours']:,.1f} device hours"
    milliseconds = 1e3 * time["device_seconds_per_sample"]
    yield (
        "a sample",
        f"{milliseconds:,.2f} ms of a device at {machines.mfu:.0%} of {machines.tflops:g} TFLOP/s",
    )
    frames = _binary(time["frame_bytes_per_second"])
    yield "reading", f"{time['samples_per_second']:,.1f} samples a second over all devices, {frames} of frames a second"
    if "money" in told:
        total, thousand = told["money"]["total"], 1000 * told["money"]["per_sample"]
        yield "money", f"{total:,.2f} at {machines.price:g} a device hour, {thousand:,.4f} for 1,000 samples seen"


def _binary(size: float) -> str:
    """Bytes with a binary prefix: 1536 is "1.500 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3f} {unit}" if unit != "B" else f"{size:,.0f} B"
        size /= 1024
    return f"{size:,.3f} TiB"


def _si(number: float) -> str:
    """With a decimal prefix: 1.5e12 is "1.5 T"."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    while number >= 1000:
        number /= 1000
        next(prefixes)
    return f"{number:.3g} {next(prefixes)}"
