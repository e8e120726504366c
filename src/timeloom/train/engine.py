"""The training loop. One for everything that is trained; what differs stands in the tasks.

Schedules count samples seen, and randomness is a function of (seed, sample): running the same command again resumes
from the last checkpoint and ends with the same weights, bit for bit on the CPU, as never having stopped.
"""

from __future__ import annotations

import contextlib
import math
import resource
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from timeloom.data import write_image
from timeloom.data.order import Order
from timeloom.data.sources import describe_shares, describe_sources, open_sources
from timeloom.data.whole_file import open_to_others
from timeloom.errors import TimeloomError
from timeloom.train.average import Average
from timeloom.train.checkpoints import Checkpoints
from timeloom.train.feed import HELD_OUT_START, Feed, first_captions, read_batch
from timeloom.train.log import Log, Means
from timeloom.train.optimizer import (
    allocate_state,
    learning_rate,
    make_optimizer,
    put_state,
    set_learning_rate,
    state_tensors,
)
from timeloom.train.parallel import Processes, Spread, local
from timeloom.train.precision import attention, precision
from timeloom.train.recipe import Recipe
from timeloom.train.run_folder import claim
from timeloom.train.task import Batch, SampleRandom, Task
from timeloom.train.trainable import count_parameters, select_trainable, trainable_table

FIRST_STEPS = 3
"""By then every trainable tensor must have had a gradient."""


class Trainer:
    """Trains one task by its recipe.

    Raises:
        TimeloomError: the folder holds a run of another recipe; a loss or gradient is not finite; a parameter that
            should be trained gets no gradient.
    """

    def __init__(self, recipe: Recipe, task: Task, device: torch.device) -> None:
        self.recipe, self.task, self.device = recipe, task, device
        self.folder = Path(recipe.output)
        self.processes = Processes()
        self.rank, self.world, self.say = self.processes.rank, self.processes.world, self.processes.say
        if recipe.schedule.batch_size % self.world:
            raise TimeloomError(f"schedule.batch_size must divide by the {self.world} processes.")
        self.window = recipe.data.window
        self.training, self.held_out = open_sources(recipe.data, recipe.seed)
        self.order = Order(self.training, self.window, recipe.seed, recipe.schedule.batch_size, sizes=recipe.data.sizes)
        shares = describe_shares(recipe.data, self.training, recipe.schedule.total_samples)
        for line in (*describe_sources(recipe.data, self.training, self.held_out), *shares, *self.order.describe()):
            self.say(line)
        self.latent_cache = task.encoder.latent_cache if task.encoder else None
        if task.encoder and (plan := task.encoder.plan_cache(self.training, self.held_out, recipe.data)):
            self.say(plan)
        self.samples, self.seen = 0, set[str]()
        self.checkpoints = Checkpoints(self.folder / "checkpoints", recipe.schedule.keep_checkpoints, self.processes)
        clips = {"training": len(self.training), "held_out": len(self.held_out)}
        claim(self.folder, recipe, clips, started=bool(self.checkpoints.saved()), write=self.rank == 0)
        self.log = Log(self.folder, self.rank == 0, recipe.trackers, recipe.model_dump(mode="json"))
        self.processes.first_then_others(lambda: task.prepare(self.folder, first_captions(self.order)))
        task.network.train()
        select_trainable(task.network, recipe.model.learning)
        if recipe.model.learning != ["*"] and self.rank == 0:
            frozen = {name: count_parameters(network) for name, network in task.frozen().items()}
            Console().print(trainable_table(task.network, frozen))
        self.spread = Spread(task, recipe, self.processes)
        self.network = self.spread.network
        self.optimizer = make_optimizer(recipe.optimizer, [p for p in self.network.parameters() if p.requires_grad])
        self.untouched = {name for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        self.average = Average(self.network, recipe.ema_half_life_samples)
        self._resume()
        if recipe.compile:
            self.network.compile()

    def _state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Everything that a checkpoint holds, by tensors that live in the run; the samples seen are its name."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.weights,
            "optimizer": state_tensors(self.optimizer, self.network),
        }

    def _resume(self) -> None:
        if not self.checkpoints.saved():
            return
        allocate_state(self.optimizer)
        state = self._state()
        self.samples = self.checkpoints.load(state)
        put_state(self.optimizer, self.network, state["optimizer"])
        self.seen = set.union(*self.processes.gather(self.log.rewind(self.samples)))
        self.say(f"resuming after {self.samples:,} samples")

    def _batches(self) -> Iterator[list[int]]:
        """This process's sample numbers for every step to come."""
        size = self.recipe.schedule.batch_size
        own = size // self.world
        for first in range(self.samples, self.recipe.schedule.total_samples, size):
            yield list(range(first + self.rank * own, first + (self.rank + 1) * own))

    def run(self) -> None:
        """Train to the end, then write what was trained."""
        schedule = self.recipe.schedule
        feed = self._feed()
        means = Means()
        if self.samples:  # the checkpoint was written before what stopped the run
            self._look(self.samples - schedule.batch_size, self.seen)
        steps, logged_at, waiting = 0, time.perf_counter(), time.perf_counter()
        for numbers, batch in feed(self._batches()):
            started = time.perf_counter()
            means.add(data_s=started - waiting, **self._step(numbers, batch), **self._shares(numbers))
            before, self.samples = self.samples, self.samples + schedule.batch_size
            self.average.update(schedule.batch_size, self.samples)
            steps += 1
            waiting = time.perf_counter()
            means.add(step_s=waiting - started)
            last = self.samples >= schedule.total_samples
            if last or _crosses(before, self.samples, schedule.log_every):
                passed = time.perf_counter() - logged_at
                self._status(self._over_processes(means.take()), steps * schedule.batch_size / passed)
                steps, logged_at = 0, time.perf_counter()
            if last or _crosses(before, self.samples, schedule.checkpoint_every):
                self.checkpoints.save(self.samples, self._state())  # before the look, which may fail
            self._look(before)
        with self.average.applied(), self.spread.whole():
            if self.rank == 0:
                self._save_model()
        self.log.close()
        if feed.ledger.dropped:
            self.say(f"clips read: {feed.ledger.summary()}")
        self.say(f"done: {self.folder / self.task.product}")

    def _look(self, before: int, seen: Collection[str] = ()) -> None:
        """Validate and evaluate, where a step that began at `before` samples makes it due; not what was `seen`."""
        last = self.samples >= self.recipe.schedule.total_samples
        kinds = {name.partition("/")[0] for name in seen}
        if "validation" not in kinds and (last or _crosses(before, self.samples, self.recipe.schedule.validate_every)):
            self._validate()
        evaluation = self.recipe.evaluation
        if evaluation and "evaluation" not in kinds and (last or _crosses(before, self.samples, evaluation.every)):
            self._evaluate()

    def _feed(self) -> Feed:
        data = self.recipe.data
        return Feed(
            self.order,
            self.recipe.workers,
            allow_broken=data.allow_drop,
            windows=data.windows,
            cache=self.latent_cache,
            pinned=self.device.type == "cuda",
        )

    def _step(self, numbers: list[int], batch: Batch) -> dict[str, float]:
        torch.manual_seed(self.recipe.seed + numbers[0])  # dropout, if a network has any
        rate = learning_rate(self.recipe.optimizer, self.samples, self.recipe.schedule.total_samples)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self._add_gradients(numbers, batch)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.max_grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not (math.isfinite(metrics["loss"]) and torch.isfinite(norm)):
            raise TimeloomError(
                f"After {self.samples:,} samples the loss ({metrics['loss']}) or its gradient ({norm.item()}) is not "
                "finite. The last checkpoint is kept; try a lower learning rate or precision: fp32."
            )
        self._check_gradients()
        self.optimizer.step()
        return {**metrics, "grad_norm": norm.item(), "learning_rate": rate}

    def _shares(self, numbers: list[int]) -> dict[str, float]:
        """The share of each source in a batch, where there are several."""
        if len(self.recipe.data.sources) < 2:
            return {}
        shares: Counter[str] = Counter()
        for options, share in zip(self.recipe.data.sources, self.order.shares(numbers), strict=True):
            shares[f"share/{options.title}"] += share  # type: ignore[assignment]
        return dict(shares)

    def _add_gradients(self, numbers: list[int], batch: Batch) -> dict[str, float]:
        """Run samples forward and backward, as many at a time as the recipe says; the means of loss and metrics."""
        size = self.recipe.schedule.micro_batch_size or len(numbers)
        means, joint = Means(), 0.0
        for first in range(0, len(numbers), size):
            part, clips = numbers[first : first + size], batch.part(first, first + size)
            network, last = self.task.network, first + size >= len(numbers)
            waits = not last and isinstance(network, DistributedDataParallel)  # gradients are exchanged once a step
            alone = cast(DistributedDataParallel, network).no_sync() if waits else contextlib.nullcontext()
            with alone, attention(self.recipe.precision, self.device):
                with precision(self.recipe.precision, self.device):
                    loss, metrics = self.task.loss(clips, SampleRandom(self.recipe.seed, part))
                loss = loss * (len(part) / len(numbers))
                loss.backward()
            joint += loss.item()
            means.add(**{name: value.item() for name, value in metrics.items()})
        return {"loss": joint, **means.take()}

    def _check_gradients(self) -> None:
        """Within the first steps every trainable tensor must get a gradient that is not zero.

        Not at once: behind a projection that is zero at first, gradients begin with the second step.
        """
        step = self.samples // self.recipe.schedule.batch_size
        if step >= FIRST_STEPS:
            return
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None and local(parameter.grad).any():
                self.untouched.discard(name)
        if step == FIRST_STEPS - 1:
            untouched = set.intersection(*self.processes.gather(self.untouched))
            if untouched:
                raise TimeloomError(f"{min(untouched)} gets no gradient, so it would never be trained.")

    def _over_processes(self, means: dict[str, float]) -> dict[str, float]:
        """The mean over all processes that have a number of this name."""
        joint = Means()
        for one in self.processes.gather(means):
            joint.add(**one)
        return joint.take()

    def _status(self, means: dict[str, float], rate: float) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**30
        total = self.recipe.schedule.total_samples
        left = (total - self.samples) / rate
        self.say(
            f"{self.samples:>10,} / {total:,} samples  loss {means['loss']:.4f}  {rate:.1f} samples/s  "
            f"data {1e3 * means['data_s']:.0f} ms  step {1e3 * means['step_s']:.0f} ms  {memory:.2f} GiB  "
            f"{left / 60:.0f} min left"
        )
        self.log.write(self.samples, **means, samples_per_s=rate, memory_gib=memory)

    def _validate(self) -> None:
        """Held-out numbers and a preview, with the average weights. Every process computes; the first one writes."""
        clips = len(self.held_out)
        starts = [HELD_OUT_START] * clips
        with self.average.applied(), self.spread.whole(), torch.random.fork_rng():
            batch = read_batch(self.held_out, list(range(clips)), self.window, starts, self.latent_cache)
            numbers = self.task.validate(batch, SampleRandom(self.recipe.seed, list(range(clips))))
            preview = self.task.preview(batch)
        if self.rank == 0:
            path = self.folder / "previews" / f"{self.samples:012d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, preview, overwrite=True)
        self.log.write(self.samples, **{f"validation/{name}": value for name, value in numbers.items()})
        self.say("  held out: " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))

    def _evaluate(self) -> None:
        """Judge and measure clips of the average weights. Every process makes its share; the first one writes."""
        from timeloom.train.evaluation import evaluate

        with self.average.applied(), self.spread.whole(), torch.random.fork_rng():
            folder = self.folder / "evaluations" / f"{self.samples:012d}"
            numbers = evaluate(self.task.pipeline(), self.recipe, folder, self.device)
        self.log.write(self.samples, **{f"evaluation/{name}": value for name, value in numbers.items()})
        self.say("  evaluated: " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def _save_model(self) -> None:
        target = self.folder / self.task.product
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.task.save(unfinished)
        open_to_others(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)


def _crosses(before: int, after: int, every: int) -> bool:
    """Whether counting from `before` to `after` passes a multiple of `every`."""
    return before // every != after // every
