"""What the engine asks of anything that is trained."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timeloom.data.clip import Frames
from timeloom.train.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Captioned clips as they come from a source."""

    frames: Frames
    """uint8 (B, F, H, W, 3)."""
    captions: list[str]

    def part(self, first: int, end: int) -> Batch:
        """Its clips from `first` to `end`, the latter left out."""
        return Batch(self.frames[first:end], self.captions[first:end])

    def pixels(self, device: torch.device) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1]."""
        frames = torch.from_numpy(self.frames).to(device)
        return frames.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1.0)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SampleRandom:
    """Random numbers of a batch, each sample's from its own (seed, number): no sample depends on its batch mates."""

    def __init__(self, seed: int, numbers: list[int]) -> None:
        self.numbers = numbers
        self.generators = [torch.Generator().manual_seed(derive_seed(seed, number)) for number in numbers]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape), standard normal."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=generator) for generator in self.generators])

    def integers(self, high: int) -> Tensor:
        """(B,) in 0 … high − 1."""
        draws = [torch.randint(high, (), generator=generator) for generator in self.generators]
        return torch.stack(draws)


class Task(ABC):
    """Builds its networks from a recipe, turns a batch into a loss, draws previews. The engine does everything else."""

    network: nn.Module
    """The trainable network; the engine may wrap it (for several processes) before training starts."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device

    def prepare(self, folder: Path, captions: Iterable[str]) -> None:  # noqa: B027
        """Look at some training captions before training (a tokenizer learns its vocabulary); `folder` is the run's."""

    @abstractmethod
    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and named numbers for the log."""

    @abstractmethod
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """Named numbers on a held-out batch; less is better for `loss`."""

    @abstractmethod
    def preview(self, batch: Batch) -> np.ndarray:
        """Draw what the network can do now: uint8 (H, W, 3); `batch` is held out. Processes may share the drawing."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model folder (Stable Diffusion layout)."""

    def frozen(self) -> dict[str, nn.Module]:
        """Networks that take part and are not trained, by name."""
        return {}


def start_positions(seed: int, numbers: list[int]) -> list[float]:
    """Where in [0, 1] of its clip each sample's window begins."""
    return [float(np.random.default_rng(derive_seed(seed, number, "start")).random()) for number in numbers]
