"""The contract between the video U-Net and whatever lets frames see each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

Point = Literal["residual_start", "residual_end"]
Stage = Literal["input", "encoder", "middle", "decoder"]
Module = Literal["convolution", "resnet", "transformer"]


@dataclass(frozen=True)
class Place:
    """Where a layer (the first convolution, a ResNet block or a transformer) stands in the U-Net."""

    stage: Stage
    level: int
    """Index of the block within its stage, in the order of the forward pass."""
    index: int
    """Of the ResNet block within its block; a transformer has that of the ResNet block before it."""
    module: Module
    last: bool
    """Whether it is the last layer of its block."""

    @property
    def name(self) -> str:
        """Part of the keys of what a mechanism keeps for this layer: "encoder_0_1"."""
        return f"{self.block}_{self.index}"

    @property
    def block(self) -> str:
        """The same for its block: "encoder_0"."""
        return f"{self.stage}_{self.level}"

    @property
    def first(self) -> bool:
        """Whether it is the first layer of its block."""
        return self.index == 0 and self.module == "resnet"


INPUT = Place("input", 0, 0, "convolution", last=True)
"""The U-Net's first convolution."""


class Layer(NamedTuple):
    """What a mechanism is told of a layer when it is built."""

    place: Place
    channels: int
    """Of the features after the layer."""
    heads: int
    """Of spatial self-attention at its level."""


class TemporalMechanism(nn.Module):
    """A U-Net asks its mechanism at two places and knows nothing else about time. This one, `none`, changes nothing."""

    added_later: ClassVar[tuple[str, ...]] = ()
    """Modules of it that change nothing at first: a folder may lack all tensors of such a module."""

    def in_residual(self, features_NCHW: Tensor, num_frames: int, point: Point) -> Tensor:
        """Answer inside a ResNet block's residual branch: at its start (before the first convolution, after norm and
        activation) and at its end (before it is added to the shortcut). (B·F, C, H, W) in and out."""
        return features_NCHW

    def after_layer(
        self, features_NCHW: Tensor, num_frames: int, place: Place, carried: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Answer after a layer of the U-Net. (B·F, C, H, W) in and out.

        `carried` is what the mechanism gave beside its answer after the layer before, of whatever size; None at first.
        """
        return features_NCHW, None
