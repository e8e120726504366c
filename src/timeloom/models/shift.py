"""Temporal shift: video from an image network without a new parameter.

Source: Latent-Shift, arXiv 2304.08477, Sec. 3.2, Fig. 3d.

Axes: B clips, F frames, N = B·F, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from timeloom.models.temporal_mechanism import Point, TemporalMechanism


def temporal_shift(features_NCHW: Tensor, num_frames: int, fraction: float = 0.25) -> Tensor:
    """Let every frame see some channels of its two neighbours: Z'_i = [Z1_{i-1}, Z2_i, Z3_{i+1}].

    The first ⌊C·fraction⌋ channels come from the previous frame, the last ⌊C·fraction⌋ from the next one, those between
    stay. Beyond the ends of a clip stand zeros (never the other end), so a single frame keeps only its middle group.

    Args:
        features_NCHW: (B·F, C, H, W), the frames of a clip next to each other.
        num_frames: F, which divides N.
        fraction: share of the channels taken from each side, in [0, 0.5].

    Returns:
        (B·F, C, H, W), same dtype. The input itself where nothing is shifted.

    Raises:
        ValueError: `num_frames` does not divide N, or `fraction` lies outside [0, 0.5].
    """
    frames, channels = features_NCHW.shape[:2]
    if num_frames < 1 or frames % num_frames:
        raise ValueError(f"{frames} frames are not a whole number of clips of {num_frames}")
    if not 0.0 <= fraction <= 0.5:
        raise ValueError(f"the shifted fraction must lie in [0, 0.5], not {fraction}")
    group = int(channels * fraction)
    if group == 0:
        return features_NCHW
    clips = features_NCHW.unflatten(0, (-1, num_frames))  # (B, F, C, H, W)
    first, kept, last = clips.split([group, channels - 2 * group, group], dim=2)
    # A zero frame comes in at one end and a frame leaves at the other; split and pad have cheap backward passes.
    from_previous = F.pad(first, (0, 0, 0, 0, 0, 0, 1, -1))
    from_next = F.pad(last, (0, 0, 0, 0, 0, 0, -1, 1))
    return torch.cat([from_previous, kept, from_next], dim=2).flatten(0, 1)


class ShiftMechanism(TemporalMechanism):
    """Temporal shift inside the residual branch of every ResNet block; nothing in the transformer blocks.

    Args:
        fraction: share of the channels from each neighbour.
        placement: "residual_end" shifts what the branch adds to its shortcut, as the paper's Fig. 3d draws it;
            "residual_start" shifts the input of the branch's first convolution, as TSM (arXiv 1811.08383) does.

    At "residual_end", each ResNet block on the way lets a frame see one frame further, back and ahead. At
    "residual_start", the decoder's last channels are its skip connection's alone, and so the view ahead grows in the
    encoder and the middle only (10 of Stable Diffusion's 22 blocks; the view back grows in all).
    """

    def __init__(self, fraction: float = 0.25, placement: Point = "residual_end") -> None:
        super().__init__()
        self.fraction = fraction
        self.placement = placement

    def in_residual(self, features_NCHW: Tensor, num_frames: int, point: Point) -> Tensor:
        if point != self.placement:
            return features_NCHW
        return temporal_shift(features_NCHW, num_frames, self.fraction)
