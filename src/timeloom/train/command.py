"""`timeloom train RECIPE`: train what a recipe describes, or go on where it stopped."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from timeloom.errors import TimeloomError
from timeloom.options import parse, require_at_least


@dataclass(frozen=True)
class TrainOptions:
    """Train what a recipe describes. Running the same command again goes on from the last checkpoint."""

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe's YAML file, or the name of a packaged one such as digits/video_shift."""
    set: list[str] = field(default_factory=list)
    """Changes to the recipe, in YAML: --set seed=1 schedule.total_samples=20000."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes an accelerator where there is one."""
    allow_drop: bool = False
    """Train although more than 20 % of a source's clips are dropped."""
    dry_run: bool = False
    """Print the resolved recipe, parameters, operations, memory and storage of training; train nothing."""
    devices: int | None = None
    """With --dry-run: devices that the run is planned for; adds the time that it will take, in all and a sample."""
    tflops: float = 989.0
    """With --devices: dense TFLOP/s of one at its best. Default: bf16 on an H100 or H200; an A100 has 312."""
    mfu: float = 0.35
    """With --devices: share of --tflops that training reaches (model FLOPs utilization), above 0, at most 1."""
    price: float | None = None
    """With --devices: price of one device for an hour, in any currency; adds what the run costs."""
    clips: int | None = None
    """With --dry-run: clips of the data set, for storage; 10_000_000 is ten million. Default: as many as samples."""
    json: bool = False
    """With --dry-run: print everything as JSON; FLOPs are operations, memory and storage bytes."""


def _check(options: TrainOptions) -> None:
    require_at_least(options, devices=1, clips=1)
    if not (0 < options.mfu <= 1 and 0 < options.tflops < math.inf):
        raise TimeloomError("--mfu must lie above 0 and at most at 1, --tflops above 0.")
    if options.price is not None and not 0 <= options.price < math.inf:
        raise TimeloomError(f"--price must be a number of at least 0, not {options.price}.")
    if options.price is not None and options.devices is None:
        raise TimeloomError("--price needs --devices, on which the run is planned.")
    given = [name for name in ("devices", "clips", "json") if getattr(options, name)]
    if given and not options.dry_run:
        raise TimeloomError(f"--{given[0]} is for planning: say --dry-run with it.")


def main(args: list[str]) -> int:
    """Run `timeloom train`."""
    options = parse(TrainOptions, args, prog="timeloom train")
    _check(options)
    import torch
    import torch.distributed as dist

    torch.set_flush_denormal(True)  # before threads start: denormal numbers can make a CPU step several times slower
    from timeloom import recipes
    from timeloom.device import choose_device, keep_memory, warn_of_slow_numbers
    from timeloom.train.recipe import load_recipe

    allowed = ["data.allow_drop=true"] if options.allow_drop else []
    recipe = load_recipe(recipes.find(options.recipe), [*options.set, *allowed])
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    device = choose_device(options.device)
    if device.type == "cuda" and processes > 1:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)

    keep_memory(device)

    from timeloom.train.engine import Trainer
    from timeloom.train.tasks import build_task

    if options.dry_run:
        from timeloom.train.plan import Machines, print_plan

        machines = Machines(options.devices, options.tflops, options.mfu, options.price) if options.devices else None
        print_plan(recipe, machines, options.clips, options.json)
        return 0
    if os.environ.get("RANK", "0") == "0":
        warn_of_slow_numbers(recipe.precision, device)
    if processes > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        Trainer(recipe, build_task(recipe, device), device).run()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0
