"""Finding the digit in a clip by its colour: backgrounds of *digits* have no hue, so whatever has some is the digit.

In a plane of chroma (red, green and blue 120° apart) a pixel that the digit covers by a share a, over any gray, lies at
a times the digit's colour. So the length there is coverage, blended edges included, and the angle is the hue.

Axes: B clips, F frames, H height, W width. Lengths are in pixels of a frame whose shorter side has 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from timeloom.data.digits import SIDE

MIN_CHROMA = 40.0
"""Colours of the data set have at least 97, in [0, 255]; a clip whose most coloured pixels have less has no digit."""
MIN_AREA = 20.0
"""Square pixels; the smallest digits of the data set have some 60."""
MAX_COVER = 0.5
"""A larger share of the frame is no digit, but a coloured background."""
MIN_COHERENCE = 0.6
"""Length of the summed chroma over the sum of lengths: 1 where all has one hue; less is noise, or many colours."""
_TOP_SHARE = 0.005  # of a clip's pixels, whose mean chroma stands for full coverage: less than the smallest digit has


@dataclass(frozen=True)
class Segmentation:
    """Where the digit is in each frame, and how much of it."""

    mask: Tensor
    """(B, F, H, W): coverage in [0, 1]."""
    chroma: Tensor
    """(B, F, 2): sum over the mask of the chroma vectors; its angle is the hue."""
    area: Tensor
    """(B, F)."""
    centre: Tensor
    """(B, F, 2): (x, y) of the centroid, from the frame's centre."""
    radius: Tensor
    """(B, F): root mean square distance from the centroid."""
    visible: Tensor
    """(B, F) bool: whether there is something to measure. Where not, the other values mean nothing, but are finite."""


def segment(clips: Tensor) -> Segmentation:
    """Find the digit in uint8 clips (B, F, H, W, 3)."""
    smooth = _blur(_blur(chroma(clips.float()), dim=2), dim=3)
    height, width = smooth.shape[2:4]
    length = smooth.square().sum(dim=-1).sqrt()
    count = max(1, round(_TOP_SHARE * length[0].numel()))
    peak = length.flatten(1).topk(count, dim=1).values.mean(dim=1)
    mask = ((length / peak.clamp(min=1e-6)[:, None, None, None] - 0.2) / 0.6).clamp(0, 1)

    scale = SIDE / min(height, width)
    rows = (torch.arange(height) + 0.5 - height / 2) * scale
    columns = (torch.arange(width) + 0.5 - width / 2) * scale
    pixels = mask.sum(dim=(2, 3))
    total = pixels.clamp(min=1e-6)
    x = (mask.sum(dim=2) * columns).sum(dim=-1) / total
    y = (mask.sum(dim=3) * rows).sum(dim=-1) / total
    xx = (mask.sum(dim=2) * columns.square()).sum(dim=-1) / total - x.square()
    yy = (mask.sum(dim=3) * rows.square()).sum(dim=-1) / total - y.square()
    area = pixels * scale**2
    coloured = torch.einsum("bfhwc,bfhw->bfc", smooth, mask)
    coherent = coloured.norm(dim=-1) >= MIN_COHERENCE * (length * mask).sum(dim=(2, 3))
    sized = (area >= MIN_AREA) & (pixels <= MAX_COVER * height * width)
    return Segmentation(
        mask=mask,
        chroma=coloured,
        area=area,
        centre=torch.stack([x, y], dim=-1),
        radius=(xx + yy).clamp(min=1.0).sqrt(),
        visible=(peak >= MIN_CHROMA)[:, None] & coherent & sized,
    )


def _blur(values: Tensor, dim: int) -> Tensor:
    """Binomial weights 1, 2, 1 along `dim`, edges repeated: against noise of single pixels."""
    size = values.shape[dim]
    before = torch.cat([values.narrow(dim, 0, 1), values.narrow(dim, 0, size - 1)], dim)
    after = torch.cat([values.narrow(dim, 1, size - 1), values.narrow(dim, size - 1, 1)], dim)
    return (before + after) / 4 + values / 2


def chroma(rgb: Tensor) -> Tensor:
    """RGB (..., 3) as vectors (..., 2) in the plane of chroma: gray is 0, the angle is the hue."""
    red, green, blue = rgb.unbind(-1)
    return torch.stack([red - (green + blue) / 2, 3**0.5 / 2 * (green - blue)], dim=-1)


def crop(found: Segmentation, offsets: Tensor, angle: Tensor) -> Tensor:
    """The mask around the centroid, in a frame of reference that moves, grows and turns with the digit.

    Args:
        found: B clips of F frames.
        offsets: (h, w, 2): (x, y) of the wanted points in units of `radius`.
        angle: (B, F) in radians: how far the digit is turned clockwise; the crop is turned back.

    Returns:
        (B, F, h, w) in [0, 1].
    """
    batch, frames, height, width = found.mask.shape
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    x, y = offsets.unbind(-1)
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)  # (B, F, h, w, 2)
    points = found.centre[:, :, None, None] + found.radius[:, :, None, None, None] * turned
    scale = min(height, width) / SIDE * 2
    grid = points * torch.tensor([scale / width, scale / height])
    glyphs = F.grid_sample(found.mask.flatten(0, 1)[:, None], grid.flatten(0, 1), align_corners=False)
    return glyphs[:, 0].unflatten(0, (batch, frames))
