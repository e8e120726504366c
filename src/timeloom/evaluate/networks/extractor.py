"""The contract of everything that turns clips into features.

Axes: N clips, F frames, H and W pixels, D features; a row belongs to an item: a clip, or a frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timeloom.errors import TimeloomError

Clips = NDArray[np.uint8]  # (N, F, H, W, 3), RGB
Rows = NDArray[np.float32]  # (items, D)


@dataclass(frozen=True)
class Source:
    """The file that a network's weights came from."""

    path: Path
    sha256: str


class Extractor(ABC):
    """A network with its own way of preparing pixels. A row depends on its item alone, not on what else is in a batch.

    `features` of clips (N, F, H, W, 3), uint8 and RGB, of any size, are float32: (N, D) where the network `takes`
    clips, (N·F, D) where it takes frames, clip by clip.
    """

    name: ClassVar[str]
    takes: ClassVar[Literal["frames", "clips"]]
    dimension: ClassVar[int]
    """D, the length of a row of features."""
    side: ClassVar[int]
    """The network sees squares of this many pixels."""
    min_frames: ClassVar[int] = 1
    max_frames: ClassVar[int | None] = None
    resize: str
    """How frames get to `side`."""
    pixels: str = "-1...1"
    """The range of pixels that the network sees, 0...255 in a file."""

    def __init__(
        self, network: nn.Module, source: Source, device: torch.device | str = "cpu", batch_size: int = 8
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.source, self.device, self.batch_size = source, torch.device(device), batch_size

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number that rests on these features has to say about them."""
        return {
            "features": self.name,
            "dimension": self.dimension,
            "side": self.side,
            "resize": self.resize,
            "pixels": self.pixels,
            "weights": self.source.path.name,
            "weights_sha256": self.source.sha256,
        }

    def features(self, clips: Clips) -> Rows:
        """One row an item, as the class says.

        Raises:
            TimeloomError: clips of another kind, too few or too many frames, or features that are not finite.
        """
        return self._rows(clips, self._features, "features")

    @abstractmethod
    def _prepare(self, items: Tensor) -> Tensor:
        """The network's input, from uint8 (B, F, H, W, 3), or (B, H, W, 3) where it takes frames."""

    @abstractmethod
    def _features(self, prepared: Tensor) -> Tensor:
        """(B, D) from what `_prepare` gave."""

    @torch.inference_mode()
    def _rows(self, clips: Clips, compute: Callable[[Tensor], Tensor], what: str) -> Rows:
        self._check(clips)
        items = clips.reshape(-1, *clips.shape[2:]) if self.takes == "frames" else clips
        found = []
        for start in range(0, len(items), self.batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(items[start : start + self.batch_size])).to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                found.append(compute(self._prepare(batch)).float().cpu())
        rows = torch.cat(found)
        broken = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if broken:
            raise TimeloomError(
                f"{self.name} gives {what} that are not finite for {self.takes[:-1]} {broken[0]} and "
                f"{len(broken) - 1} more of {len(rows)}; the weights are those in {self.source.path}."
            )
        return rows.numpy()

    def _check(self, clips: Clips) -> None:
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or not clips.size:
            raise TimeloomError(
                f"{self.name} takes clips as uint8 (N, F, H, W, 3), not {clips.dtype} {tuple(clips.shape)}."
            )
        frames = clips.shape[1]
        if frames < self.min_frames or frames > (self.max_frames or frames):
            wanted = f"{self.min_frames}" if self.max_frames == self.min_frames else f"at least {self.min_frames}"
            raise TimeloomError(f"{self.name} takes clips of {wanted} frames, and these have {frames}.")


class Classifier(Extractor):
    """An extractor whose network knows classes: it gives logits too."""

    num_classes: ClassVar[int]

    def logits(self, clips: Clips) -> Rows:
        """(items, num_classes), before the softmax. Raises as `features` does."""
        return self._rows(clips, self._logits, "logits")

    @abstractmethod
    def _logits(self, prepared: Tensor) -> Tensor:
        """(B, num_classes) from what `_prepare` gave."""
