"""Several processes: who does what, and how the network lies on them.

`parallel: ddp` keeps a whole copy on each process (DistributedDataParallel). `parallel: fsdp` keeps a share of each
tensor on each (FSDP2, `fully_shard`): weights, gradients, optimizer state and moving average take 1/N of the memory.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from timeloom.errors import TimeloomError
from timeloom.models.temporal import TemporalAttention
from timeloom.train.recipe import Recipe
from timeloom.train.task import Task

Item = TypeVar("Item")
Result = TypeVar("Result")


def local(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor, in the same memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Processes:
    """The processes of this run; one, where torchrun did not start it."""

    def __init__(self) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    def say(self, line: str) -> None:
        """Print once, whatever the number of processes."""
        if self.rank == 0:
            print(line, flush=True)

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.world > 1:
            dist.barrier()

    def first_then_others(self, action: Callable[[], object]) -> None:
        """Run `action` on the first process, which may write files, then on the others, which find them."""
        if self.rank == 0:
            action()
        self.wait()
        if self.rank:
            action()

    def gather(self, value: Result) -> list[Result]:
        """Every process's value, in their order, on each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, draw: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`draw` of each item, in order, on every process; each process draws its share of them."""
        drawn: dict[int, Result] = {}
        for part in self.gather({i: draw(items[i]) for i in range(self.rank, len(items), self.world)}):
            drawn |= part
        return [drawn[i] for i in range(len(items))]


class Spread:
    """Lays a task's network on the processes; from then on `task.network` is what a training step calls.

    `network` holds the parameters that learn: whole, or this process's shares of them.

    Raises:
        TimeloomError: the network or the recipe cannot be sharded.
    """

    def __init__(self, task: Task, recipe: Recipe, processes: Processes) -> None:
        self.task = task
        self.own = self.network = task.network
        if processes.world == 1:
            return
        if recipe.parallel == "ddp":
            task.network = DistributedDataParallel(self.network)
            return
        _require_equal_passes(recipe, processes.world)
        self.network = task.network = shard(copy.deepcopy(self.own), recipe.precision)
        self._empty()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within, `task.network` is the whole network in evaluation mode, on every process, which must all come here.

        Whatever calls it in whatever way (a pipeline, some processes more often than others) meets no shards.
        """
        called, self.task.network = self.task.network, self.own
        if self.own is not self.network:
            with torch.no_grad():
                for own, share in zip(self.own.parameters(), self.network.parameters(), strict=True):
                    own.data = share.full_tensor()  # type: ignore[attr-defined]
        self.own.eval()
        try:
            yield
        finally:
            self.own.train()
            if self.own is not self.network:
                self._empty()
            self.task.network = called

    def _empty(self) -> None:
        for own in self.own.parameters():
            own.data = own.data.new_empty(0)


def shard(network: nn.Module, precision: str) -> nn.Module:
    """Shard a network over all processes, in place. Its weights stay fp32; in bf16 they are gathered as such, and
    gradients are averaged in fp32.

    Raises:
        TimeloomError: a parameter is a single number without a dimension.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim == 0:
            raise TimeloomError(f"parallel: fsdp cannot shard {name}, a single number; say parallel: ddp.")
    device = next(network.parameters()).device.type
    options: dict[str, Any] = {"mesh": init_device_mesh(device, (dist.get_world_size(),))}
    if precision == "bf16":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for modules in _groups(network):
        fully_shard(modules, **options)
    # The U-Net answers with a view; FSDP warns of changing that in place, which no task does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    fully_shard(network, **options)
    return network


def _groups(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Modules whose parameters are gathered at once and let go after use. What is left over stays with the root.

    FSDP gathers when a module of the group is called. VideoUNet calls the parts of a ResNet block and never the block,
    so its parts are the group. Each part must be called once in a forward pass.
    """
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            yield [part for part in module.children() if any(True for _ in part.parameters())]
        elif isinstance(module, (Transformer2DModel, TemporalAttention)):
            yield [module]


def _require_equal_passes(recipe: Recipe, world: int) -> None:
    """Each forward pass gathers shards, so all processes must make as many: clips and images are a pass each."""
    share, own = recipe.loss.image_share, recipe.schedule.batch_size // world
    size = min(recipe.schedule.micro_batch_size or own, own)
    least = own % size or size
    if share and (least * share < 1 or least * (1 - share) < 1):
        raise TimeloomError(
            f"parallel: fsdp needs clips and images in every pass, and loss.image_share {share} of the {least} samples "
            "that a process takes at a time is not one of each; raise schedule.batch_size or micro_batch_size."
        )
