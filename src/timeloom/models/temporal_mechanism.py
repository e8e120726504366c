"""The contract between the video U-Net and whatever lets frames see each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

Point = Literal["residual_start", "residual_end"]
Stage = Literal["encoder", "middle", "decoder"]


@dataclass(frozen=True)
class Place:
    """Where a layer (ResNet block with its transformer) stands in the U-Net."""

    stage: Stage
    level: int
    """Index of the block within its stage, in the order of the forward pass."""
    index: int
    """Of the layer within its block."""
    last: bool
    """Whether it is the last layer of its block."""

    @property
    def name(self) -> str:
        """Part of the keys of what a mechanism keeps for this layer: "encoder_0_1"."""
        return f"{self.stage}_{self.level}_{self.index}"


class Layer(NamedTuple):
    """What a mechanism is told of a layer when it is built."""

    place: Place
    channels: int
    """Of the features after the layer."""
    heads: int
    """Of its spatial self-attention; 0 where the layer has no transformer."""


class TemporalMechanism(nn.Module):
    """A U-Net asks its mechanism at two places and knows nothing else about time. This one, `none`, changes nothing."""

    def in_residual(self, features_NCHW: Tensor, num_frames: int, point: Point) -> Tensor:
        """Answer inside a ResNet block's residual branch: at its start (before the first convolution, after norm and
        activation) and at its end (before it is added to the shortcut). (B·F, C, H, W) in and out."""
        return features_NCHW

    def after_layer(self, features_NCHW: Tensor, num_frames: int, place: Place) -> Tensor:
        """Answer after a layer of the U-Net. (B·F, C, H, W) in and out."""
        return features_NCHW
