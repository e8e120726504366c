"""The space-time separable U-Net of VideoFactory: a 1D module over time beside each 2D module, and how the two join.

Source: VideoFactory, arXiv 2305.10874, "High-Quality Text-to-Video Generation". The 1D modules are those of
ModelScope's text-to-video U-Net (arXiv 2308.06571), from which the authors start, and keep the names of its tensors.
Where x is the output of a 2D module and y that of the 1D module beside it, they are joined as z = x + y + change(x, y),
the change zero at first: a 1×1 convolution, and at the end of each encoder and decoder block Swap-CA (swap.py).

Axes: B clips, F frames, N = B·F, C channels, H height, W width, P = H·W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from einops import rearrange
from torch import Tensor, nn

from timeloom.errors import TimeloomError
from timeloom.models.swap import SwapAttention
from timeloom.models.swap_options import Stream, SwapOptions
from timeloom.models.temporal_mechanism import Layer, Place, TemporalMechanism

HEADS_AT_INPUT = 8
"""Of the attention over time beside the first convolution, as wide as those of the first block (ModelScope's)."""


class ConvolutionOverTime(nn.Conv3d):
    """Three frames wide, one pixel high and wide; by its weights a Conv3d. (B, C, F, P) in and out."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, features_BCFP: Tensor) -> Tensor:
        # Over (frames, pixels) it is a 2D convolution, which processors compute several times as fast as a 3D one.
        return F.conv2d(features_BCFP, self.weight[..., 0], self.bias, padding=(1, 0))


class TemporalConvolution(nn.Module):
    """Four convolutions over time at each pixel: y, which is zero at first.

    ModelScope's `TemporalConvLayer` without what it adds y to, and without dropout: a sample must not depend on its
    batch mates.

    Args:
        channels: C.
        inner: channels between the convolutions.
        groups: of the group norms.
    """

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()

        def convolution(before: int, after: int, *between: nn.Module) -> nn.Sequential:
            return nn.Sequential(nn.GroupNorm(groups, before), nn.SiLU(), *between, ConvolutionOverTime(before, after))

        self.conv1 = convolution(channels, inner)
        self.conv2 = convolution(inner, inner, nn.Identity())  # where ModelScope drops out: its names count it
        self.conv3 = convolution(inner, inner, nn.Identity())
        self.conv4 = convolution(inner, channels, nn.Identity())
        _zero(self.conv4[-1])

    def forward(self, features_NCHW: Tensor, num_frames: int) -> Tensor:
        """(B·F, C, H, W) in and out."""
        height = features_NCHW.shape[2]
        x = rearrange(features_NCHW, "(b f) c h w -> b c f (h w)", f=num_frames)
        x = self.conv4(self.conv3(self.conv2(self.conv1(x))))
        return rearrange(x, "b c f (h w) -> (b f) c h w", h=height)


class TemporalTransformer(nn.Module):
    """Two self-attentions over time at each pixel and a feed-forward network: y, which is zero at first.

    ModelScope's `TransformerTemporalModel` without what it adds y to. It has no positions of its own: the convolutions
    over time, which meet zeros at both ends of a clip, tell it the order of the frames.

    Args:
        channels: C.
        inner: channels of the attentions.
        heads: which divide `inner`.
        groups: of the group norm.
    """

    def __init__(self, channels: int, inner: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        block = BasicTransformerBlock(inner, heads, inner // heads, double_self_attention=True)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Linear(inner, channels)
        _zero(self.proj_out)

    def forward(self, features_NCHW: Tensor, num_frames: int) -> Tensor:
        """(B·F, C, H, W) in and out."""
        height, width = features_NCHW.shape[2:]
        x = self.norm(rearrange(features_NCHW, "(b f) c h w -> b c f h w", f=num_frames))
        x = self.proj_in(rearrange(x, "b c f h w -> (b h w) f c"))
        x = self.proj_out(self.transformer_blocks[0](x))
        return rearrange(x, "(b h w) f c -> (b f) c h w", h=height, w=width)


class PointwiseFusion(nn.Module):
    """z = x + y + Conv1×1([x, y]), the convolution zero at first: a 1×1 convolution that begins as plain addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        _zero(self.conv)

    def forward(self, spatial_NCHW: Tensor, temporal_NCHW: Tensor) -> Tensor:
        """x and y, (B·F, C, H, W); z of that shape."""
        return spatial_NCHW + temporal_NCHW + self.conv(torch.cat([spatial_NCHW, temporal_NCHW], dim=1))


class TemporalSkip(nn.Module):
    """Temporal features from before a spatial down- or up-sampling, for the first temporal module behind it; zero at
    first."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, after, 1)
        _zero(self.proj)

    def forward(self, temporal_NCHW: Tensor, height: int, width: int) -> Tensor:
        """Of any size before, in the given one after: the mean over the area of each pixel."""
        return self.proj(F.interpolate(temporal_NCHW, size=(height, width), mode="area"))


class SwapMechanism(TemporalMechanism):
    """A 1D module beside each 2D module of the U-Net, joined by 1×1 convolutions and at the ends of blocks by Swap-CA.

    Args:
        options: of the mechanism.
        layers: the network's, in the order of the forward pass.
        groups: of its group norms.

    Raises:
        TimeloomError: the heads do not divide the channels.
    """

    added_later = ("fusions", "swaps", "skips")

    def __init__(self, options: SwapOptions, layers: Sequence[Layer], groups: int) -> None:
        super().__init__()
        self.convolutions, self.attentions = nn.ModuleDict(), nn.ModuleDict()
        self.fusions, self.swaps, self.skips = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        ends = 0
        channels_before = 0
        for place, channels, heads in layers:
            inner = _inner(channels, options.width, groups, heads)
            if place.module == "resnet":
                self.convolutions[place.name] = TemporalConvolution(channels, inner, groups)
            elif place.module == "transformer":
                self.attentions[place.name] = TemporalTransformer(channels, inner, heads, groups)
            else:
                inner = _inner(HEADS_AT_INPUT * channels // heads, options.width, groups, HEADS_AT_INPUT)
                self.attentions[place.name] = TemporalTransformer(channels, inner, HEADS_AT_INPUT, groups)
            if (
                place.first and place.level and options.skips
            ):  # blocks of an encoder or decoder: a sampling lies between
                self.skips[place.block] = TemporalSkip(channels_before, channels)
            if not _swaps(place):
                self.fusions[f"{place.name}_{place.module}"] = PointwiseFusion(channels)
            elif asks := options.asks(ends):
                self.swaps[place.block] = _swap_attention(options, place, channels, inner, heads, asks, ends, groups)
            ends += _swaps(place)
            channels_before = channels

    def after_layer(
        self, features_NCHW: Tensor, num_frames: int, place: Place, carried: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        seen = features_NCHW
        if place.first and carried is not None and place.block in self.skips:
            seen = seen + self.skips[place.block](carried, *features_NCHW.shape[2:])
        module = (self.convolutions if place.module == "resnet" else self.attentions)[place.name]
        temporal_NCHW = module(seen, num_frames)
        if not _swaps(place):
            joined = self.fusions[f"{place.name}_{place.module}"](features_NCHW, temporal_NCHW)
        elif place.block in self.swaps:
            joined = self.swaps[place.block](features_NCHW, temporal_NCHW, num_frames)
        else:
            joined = features_NCHW + temporal_NCHW
        return joined, temporal_NCHW if place.last else None


def _swaps(place: Place) -> bool:
    """Whether this is where Swap-CA stands: at the end of each encoder and decoder block."""
    return place.last and place.stage in ("encoder", "decoder")


def _swap_attention(
    options: SwapOptions, place: Place, channels: int, inner: int, heads: int, asks: Stream, number: int, groups: int
) -> SwapAttention:
    heads = options.heads or heads
    if inner % heads:
        raise TimeloomError(
            f"swap.heads: {heads} heads do not divide the {inner} channels of Swap-CA at the end of {place.block}."
        )
    return SwapAttention(
        channels,
        heads,
        asks,
        window=options.window,
        shifted=number % 2 == 1,
        feed_forward=options.feed_forward,
        inner_channels=inner,
        groups=groups,
    )


def _inner(channels: int, width: float, groups: int, heads: int) -> int:
    """A share of the channels, in whole groups and heads."""
    if width == 1:
        return channels
    unit = lcm(groups, heads)
    return max(1, round(width * channels / unit)) * unit


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
