"""What the engine asks of anything that is trained."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from timeloom.data.clip import Frames
from timeloom.train.recipe import Recipe

if TYPE_CHECKING:
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.train.encode import Encoder


@dataclass(frozen=True)
class Example:
    """A window of a captioned clip: its frames, or its latents where they are known."""

    caption: str
    frames: Tensor | None
    """uint8 (F, H, W, 3)."""
    latents: Tensor | None = None
    """(F, C, h, w), scaled, fp16."""
    place: Path | None = None
    """Where its latents are to be kept."""
    from_file: bool = False
    """Read, and not drawn from nothing."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Exact ground truth, where the source has it."""

    def pixels(self, device: torch.device) -> Tensor:
        """(F, 3, H, W) in [-1, 1]."""
        assert self.frames is not None, "only tasks that encode get latents in place of frames"
        frames = self.frames.to(device, non_blocking=True)
        return frames.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)

    def pinned(self) -> Example:
        """In memory that a GPU can copy from while it computes."""
        frames, latents = (tensor if tensor is None else tensor.pin_memory() for tensor in (self.frames, self.latents))
        return replace(self, frames=frames, latents=latents)


@dataclass(frozen=True)
class Batch:
    """Examples of one size."""

    examples: list[Example]

    @classmethod
    def of(cls, frames: Frames, captions: list[str], attributes: Sequence[Mapping[str, str]] | None = None) -> Batch:
        """Clips as arrays, uint8 (B, F, H, W, 3), with their ground truth where there is one."""
        told = attributes or [{}] * len(captions)
        rows = zip(captions, torch.from_numpy(frames).unbind(), told, strict=True)
        return cls([Example(caption, row, attributes=own) for caption, row, own in rows])

    @property
    def captions(self) -> list[str]:
        return [example.caption for example in self.examples]

    def part(self, first: int, end: int) -> Batch:
        """Its clips from `first` to `end`, the latter left out."""
        return Batch(self.examples[first:end])

    def pixels(self, device: torch.device) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1]."""
        return torch.stack([example.pixels(device) for example in self.examples])

    def pin_memory(self) -> Batch:
        """In memory that a GPU can copy from while it computes."""
        return Batch([example.pinned() for example in self.examples])


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SampleRandom:
    """Random numbers of a batch, each sample's from its own (seed, number): no sample depends on its batch mates."""

    def __init__(self, seed: int, numbers: list[int]) -> None:
        self.numbers = numbers
        self.generators = [torch.Generator().manual_seed(derive_seed(seed, number)) for number in numbers]

    def part(self, first: int, end: int) -> SampleRandom:
        """Those of its samples from `first` to `end`, the latter left out; what it draws is drawn for both."""
        part = SampleRandom.__new__(SampleRandom)
        part.numbers, part.generators = self.numbers[first:end], self.generators[first:end]
        return part

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
    encoder: Encoder | None = None
    """Of tasks that train on latents; None where pixels are seen."""

    product = "model"
    """Name of the run's folder that `save` fills."""

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
        """Write what was trained: the model folder (Stable Diffusion layout), or an adapter."""

    def pipeline(self) -> TextToVideoPipeline:
        """What makes clips with the network as it is now, sampled as the recipe's `preview` says; of U-Nets alone."""
        raise NotImplementedError(f"{type(self).__name__} makes no clips")

    def frozen(self) -> dict[str, nn.Module]:
        """Networks that take part and are not trained, by name."""
        return {}


def start_positions(seed: int, numbers: list[int]) -> list[float]:
    """Where in [0, 1] of its clip each sample's window begins."""
    return [float(np.random.default_rng(derive_seed(seed, number, "start")).random()) for number in numbers]
