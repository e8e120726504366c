"""`--dry-run`: what a recipe will train and what memory it will take, before anything is trained."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from rich.console import Console
from torch import Tensor, nn

from timeloom.data.sources import open_sources
from timeloom.train.feed import read_batch
from timeloom.train.recipe import Recipe
from timeloom.train.task import SampleRandom, Task
from timeloom.train.trainable import select_trainable, trainable_table


@dataclass(frozen=True)
class Plan:
    """Sizes of a training run on one process. Bytes, but for the numbers of parameters."""

    trained: int
    """Parameters."""
    frozen: dict[str, int]
    """Parameters of the networks that take part without learning."""
    state_bytes: int
    """fp32 weights, gradients, two Adam moments and the moving average of what is trained, and the frozen weights."""
    activation_bytes_per_sample: int
    """Kept between forward and backward pass; measured on one sample in the recipe's precision."""
    batch_size: int

    @property
    def total_bytes(self) -> int:
        """State and activations of a whole batch; libraries and work space come on top."""
        return self.state_bytes + self.batch_size * self.activation_bytes_per_sample


def measure(recipe: Recipe, task: Task) -> Plan:
    """Build nothing but what the task built, run one sample forward, and count."""
    source, held_out = open_sources(recipe.data, recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        task.prepare(Path(folder), [held_out[i].caption for i in range(len(held_out))])
    select_trainable(task.network, recipe.model.trainable)
    batch = read_batch(source, [0], recipe.data.window, [0.5])
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in task.network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        with torch.autocast(task.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss, _ = task.loss(batch, SampleRandom(recipe.seed, [0]))
        activations = sum(size for pointer, size in kept.items() if pointer not in own)
    del loss
    trained = sum(parameter.numel() for parameter in task.network.parameters() if parameter.requires_grad)
    frozen = {name: _parameters(network) for name, network in task.frozen().items()}
    frozen_bytes = 4 * (_parameters(task.network) - trained + sum(frozen.values()))
    copies = 4 + (recipe.ema_half_life_samples > 0)
    state = 4 * copies * trained + frozen_bytes
    return Plan(trained, frozen, state, activations, recipe.schedule.batch_size)


def print_plan(recipe: Recipe, task: Task) -> None:
    """The resolved recipe, then the sizes."""
    plan = measure(recipe, task)
    console = Console()
    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    console.print(trainable_table(task.network, plan.frozen))
    steps = -(-recipe.schedule.total_samples // plan.batch_size)
    console.print(f"{recipe.schedule.total_samples:,} samples in {steps:,} steps of {plan.batch_size}")
    console.print(
        f"memory on one process: {_gib(plan.state_bytes)} of weights, gradients, optimizer and average "
        f"+ {plan.batch_size} x {_gib(plan.activation_bytes_per_sample)} of activations = {_gib(plan.total_bytes)}, "
        "and what the libraries take"
    )


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _gib(size: int) -> str:
    return f"{size / 2**30:.3f} GiB"
