"""A small video classifier whose features can be measured, and set beside those of sentences.

Space and time are convolved apart (Tran et al. 2018, R(2+1)D, arXiv 1711.11248). Everything is pooled at the end, so
clips may have any size and length, and a clip of one frame is an image.

Axes: B clips, F frames, C channels, H and W pixels, D features, E of the space shared with sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (1, 2, 4, 8)
"""Channels after each halving, in units of the width."""
GROUPS = 8


class Reading(NamedTuple):
    """What the network says of some clips."""

    features: Tensor
    """(B, D), of which the rest are functions."""
    logits: dict[str, Tensor]
    """{attribute: (B, classes)}."""
    embedding: Tensor
    """(B, E), of length 1."""


class Stage(nn.Module):
    """Half the size in space, then a look at the frames before and after."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
        self.norm = nn.GroupNorm(GROUPS, outputs)
        self.time = nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, videos_BFCHW: Tensor) -> Tensor:
        """(B, F, C, H, W) to (B, F, C', H / 2, W / 2)."""
        frames = F.gelu(self.norm(self.space(videos_BFCHW.flatten(0, 1))))
        videos = frames.unflatten(0, videos_BFCHW.shape[:2]).transpose(1, 2)  # (B, C', F, H, W)
        return (videos + F.gelu(self.time(videos))).transpose(1, 2)


class VideoClassifier(nn.Module):
    """Tells attributes of clips, and how well clips and sentences go together.

    Args:
        classes: what each attribute may be, in the order of its logits.
        width: channels after the first halving, a multiple of 8.
        dimension: D.
        embedding: E.
        text_width: numbers in a sentence's features, which come from a text encoder elsewhere.
    """

    def __init__(
        self,
        classes: Mapping[str, Sequence[str]],
        width: int = 16,
        dimension: int = 128,
        embedding: int = 64,
        text_width: int = 96,
    ) -> None:
        super().__init__()
        channels = [3, *(width * multiple for multiple in STAGES)]
        self.stages = nn.Sequential(*(Stage(channels[i], channels[i + 1], 3 if i else 5) for i in range(len(STAGES))))
        self.neck = nn.Linear(2 * channels[-1], dimension)
        self.heads = nn.ModuleDict({name: nn.Linear(dimension, len(values)) for name, values in classes.items()})
        self.video_head = nn.Linear(dimension, embedding)
        self.text_head = nn.Linear(text_width, embedding)

    def forward(self, videos_BFCHW: Tensor) -> Reading:
        """Videos in [-1, 1], 32 × 32 pixels or more."""
        last = self.stages(videos_BFCHW).transpose(1, 2).flatten(2)  # (B, C, F·H·W)
        features = self.neck(torch.cat([last.mean(dim=2), last.amax(dim=2)], dim=1))
        hidden = F.gelu(features)
        logits = {name: head(hidden) for name, head in self.heads.items()}
        return Reading(features, logits, F.normalize(self.video_head(hidden), dim=1))

    def embed_text(self, text_BLD: Tensor) -> Tensor:
        """(B, E), of length 1, from what a text encoder says of each token of B sentences: (B, L, text_width)."""
        return F.normalize(self.text_head(text_BLD.mean(dim=1)), dim=1)
