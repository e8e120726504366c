"""`--dry-run`: what a recipe will train and what that takes, counted on the meta device."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import nn

from timeloom.data.order import Order
from timeloom.data.sources import open_sources
from timeloom.models.cost import measure
from timeloom.train.feed import first_captions
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom
from timeloom.train.tasks import build_task
from timeloom.train.trainable import select_trainable, trainable_table

META = torch.device("meta")


@dataclass(frozen=True)
class Machines:
    """What a run is planned for."""

    devices: int
    tflops: float
    """Of one device at its best, in the recipe's precision; 1e12 operations a second."""
    mfu: float
    """The share of that which training reaches: model FLOPs utilization (PaLM, arXiv 2204.02311, App. B)."""


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

    def memory_bytes(self, samples: int) -> int:
        """State, and activations of so many samples at a time; libraries and work space come on top."""
        return self.state_bytes + samples * self.activation_bytes_per_sample

    def device_seconds(self, machines: Machines) -> float:
        """One device's time for one sample."""
        return self.flops_per_sample / (machines.tflops * 1e12 * machines.mfu)


def make_plan(recipe: Recipe) -> tuple[Plan, Table]:
    """The sizes, and a table of parameters. No weights are read, and no clips but the text encoder's captions.

    Raises:
        TimeloomError: a model folder that the recipe names is missing.
    """
    task = build_task(recipe, META)

    def captions() -> Iterator[str]:  # opens the sources only where a task wants to see captions
        source, _ = open_sources(recipe.data, recipe.seed)
        yield from first_captions(Order(source, recipe.data.window, recipe.seed, recipe.schedule.batch_size))

    with tempfile.TemporaryDirectory() as folder:
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
    frozen = {name: _parameters(network) for name, network in task.frozen().items()}
    averaged = recipe.ema_half_life_samples > 0
    state = 4 * (4 + averaged) * trained + 4 * (_parameters(task.network) - trained + sum(frozen.values()))
    plan = Plan(
        trained=trained,
        frozen=frozen,
        state_bytes=state,
        activation_bytes_per_sample=cost.peak_bytes // (2 if recipe.precision == "bf16" else 1),
        flops_per_sample=cost.flops,
        checkpoint_bytes=4 * (_parameters(task.network) + (2 + averaged) * trained),
    )
    return plan, trainable_table(task.network, frozen)


def print_plan(recipe: Recipe, machines: Machines | None) -> None:
    """The resolved recipe, then the sizes, and the time on `machines`."""
    plan, table = make_plan(recipe)
    schedule, console = recipe.schedule, Console()
    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    console.print(table)
    devices = machines.devices if machines else 1
    at_once = schedule.micro_batch_size or -(-schedule.batch_size // devices)
    total = schedule.total_samples * plan.flops_per_sample
    rows = [
        ("samples", f"{schedule.total_samples:,} in {-(-schedule.total_samples // schedule.batch_size):,} steps"),
        ("operations", f"{_si(plan.flops_per_sample)}FLOP a sample, {_si(total)}FLOP in all"),
        (
            "memory of a device",
            f"{_gib(plan.state_bytes)} of weights, gradients, optimizer and average + {at_once} x "
            f"{_gib(plan.activation_bytes_per_sample)} of activations = {_gib(plan.memory_bytes(at_once))}, "
            "and what the libraries take",
        ),
        ("checkpoints", f"{schedule.keep_checkpoints} x {_gib(plan.checkpoint_bytes)}"),
    ]
    if machines:
        seconds = plan.device_seconds(machines)
        hours = schedule.total_samples * seconds / devices / 3600
        rows += [
            ("time", f"{hours:,.1f} hours on {devices} devices, {hours * devices:,.1f} device hours"),
            ("a sample", f"{1e3 * seconds:,.2f} ms of a device at {machines.mfu:.0%} of {machines.tflops:g} TFLOP/s"),
        ]
    summary = Table(show_header=False)
    for row in rows:
        summary.add_row(*row)
    console.print(summary)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _gib(size: int) -> str:
    return f"{size / 2**30:.3f} GiB"


def _si(number: float) -> str:
    """With a decimal prefix: 1.5e12 is "1.5 T"."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    while number >= 1000:
        number /= 1000
        next(prefixes)
    return f"{number:.3g} {next(prefixes)}"
