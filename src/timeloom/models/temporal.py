"""Attention over time: the baseline that Latent-Shift is compared with (Latent-VDM).

Source: Latent-Shift, arXiv 2304.08477, Sec. 4; the 4C² of each layer, no feed-forward beside it, are derived from the
paper's 1.58 B parameters.

Axes: B clips, F frames, N = B·F, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from timeloom.models.temporal_mechanism import Layer, Place, TemporalMechanism


class TemporalAttention(nn.Module):
    """Every pixel's F features attend to each other. At first it changes nothing: the output projection is zero.

    Args:
        channels: C.
        heads: number of attention heads, which divides C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads=heads, dim_head=channels // heads)
        nn.init.zeros_(self.attention.to_out[0].weight)
        nn.init.zeros_(self.attention.to_out[0].bias)

    def forward(self, features_NCHW: Tensor, num_frames: int) -> Tensor:
        """(B·F, C, H, W) in and out; each frame's position enters as a sinusoid, so that any F will do."""
        channels, height, width = features_NCHW.shape[1:]
        clips = features_NCHW.unflatten(0, (-1, num_frames))
        pixels_SFC = clips.permute(0, 3, 4, 1, 2).reshape(-1, num_frames, channels)  # S = B·H·W sequences
        positions_FC = get_timestep_embedding(torch.arange(num_frames, device=features_NCHW.device), channels)
        change = self.attention(self.norm(pixels_SFC) + positions_FC.to(pixels_SFC.dtype))
        change = change.reshape(-1, height, width, num_frames, channels).permute(0, 3, 4, 1, 2)
        return features_NCHW + change.flatten(0, 1)


class AttentionMechanism(TemporalMechanism):
    """A temporal attention after each spatial transformer, with as many heads as the transformer has.

    Args:
        layers: the network's layers; those that are no transformer get nothing.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.attentions = nn.ModuleDict(
            {
                place.name: TemporalAttention(channels, heads)
                for place, channels, heads in layers
                if place.module == "transformer"
            }
        )

    def after_layer(
        self, features_NCHW: Tensor, num_frames: int, place: Place, carried: Tensor | None
    ) -> tuple[Tensor, None]:
        if place.module != "transformer":
            return features_NCHW, None
        return self.attentions[place.name](features_NCHW, num_frames), None
