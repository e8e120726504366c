"""Super-resolution of single frames: RCAN (arXiv 1807.02758), and the discriminator that it is trained against.

VideoFactory's last step (arXiv 2305.10874, Sec. 3.4) is an RCAN with 8 residual channel-attention blocks, four times
larger: the defaults of `RCAN`. Tensors have the names of the authors' code, so their weights load as they are.

Axes: N frames, C channels, H, W height and width of the small frames, S the scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from timeloom.errors import TimeloomError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of the authors' training images, in [0, 1]."""
SCALES = (2, 3, 4)


class ChannelAttention(nn.Module):
    """x · s, with s = sigmoid(W_U relu(W_D mean(x))) one number a channel (arXiv 1807.02758, Eq. 10)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(1, width // reduction)
        down, up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        nn.init.constant_(down.bias, 0.5)  # type: ignore[arg-type]  # so few units might all be dead from the beginning
        self.conv_du = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class ResidualBlock(nn.Module):
    """F + CA(W₂ relu(W₁ F)), Eq. 11: a residual channel-attention block."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), ChannelAttention(width, reduction)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResidualGroup(nn.Module):
    """Blocks, a convolution, and a skip around them all (Eq. 6)."""

    def __init__(self, width: int, reduction: int, num_blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(ResidualBlock(width, reduction) for _ in range(num_blocks)), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MeanShift(nn.Module):
    """x · weight + bias by colour, fixed. In the authors' files a 1x1 convolution whose weight is diagonal.

    Computed in fp32 also where the network runs in bf16, whose step near 1 is a whole gray level.
    """

    def __init__(self, shift: list[float]) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.eye(3)[:, :, None, None])
        self.register_buffer("bias", torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return x.float() * self.weight.flatten(1).diagonal()[:, None, None].float() + self.bias[:, None, None].float()


class RCAN(ModelMixin, ConfigMixin):
    """Small frames become frames `scale` times larger.

    Args:
        num_groups: residual groups.
        num_blocks: residual channel-attention blocks of each group.
        width: channels.
        reduction: how many times fewer channels the attention has inside.
        scale: 2, 3 or 4.
        pixel_range: 255 where the weights were trained on pixels in 0 … 255, as the authors' were; else 1.

    Raises:
        TimeloomError: another scale.
    """

    @register_to_config
    def __init__(
        self,
        num_groups: int = 1,
        num_blocks: int = 8,
        width: int = 64,
        reduction: int = 16,
        scale: int = 4,
        pixel_range: float = 1.0,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise TimeloomError(f"scale must be 2, 3 or 4, not {scale}.")
        self.sub_mean = MeanShift([-pixel_range * mean for mean in DIV2K_MEAN])
        self.add_mean = MeanShift([pixel_range * mean for mean in DIV2K_MEAN])
        groups = (ResidualGroup(width, reduction, num_blocks) for _ in range(num_groups))
        self.head = nn.Sequential(_conv(3, width))
        self.body = nn.Sequential(*groups, _conv(width, width))
        self.tail = nn.Sequential(_enlarge(width, scale), _conv(width, 3))

    @property
    def tail_reach(self) -> int:
        """How far, in small pixels, a pixel of `reconstruct` sees: a 3x3 convolution at each size on the way."""
        steps = 2 if self.config.scale == 4 else 1
        return math.ceil(sum(1 / 2**i for i in range(steps)) + 1 / self.config.scale)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N, 3, S·H, S·W), fp32, in about [0, 1]."""
        #                                                        (N, 3, H, W)
        features = self.extract(images_NCHW)  # (N, width, H, W)
        return self.reconstruct(features)  # (N, 3, S·H, S·W)

    def extract(self, images_NCHW: Tensor) -> Tensor:
        """Features of whole frames. Channel attention averages over the frame: a part of it has other features."""
        dtype = next(self.head.parameters()).dtype
        x = self.sub_mean(images_NCHW * self.config.pixel_range).to(dtype)
        x = self.head(x.contiguous(memory_format=torch.channels_last))  # all that follows stays so, and is faster
        return x + self.body(x)

    def reconstruct(self, features: Tensor) -> Tensor:
        """Features to large frames. Convolutions alone: it may be done in parts that overlap by `tail_reach`."""
        return self.add_mean(self.tail(features)) / self.config.pixel_range


class Discriminator(nn.Module):
    """Says of each pixel whether it is real: a U-Net with skips, spectrally normalised (arXiv 2107.10833, Sec. 3.3).

    Args:
        width: channels at full size; 2, 4 and 8 times as many at the halves.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()

        def conv(inside: int, outside: int, size: int = 3) -> nn.Conv2d:
            stride = 2 if size == 4 else 1
            layer = nn.Conv2d(inside, outside, size, stride, padding=1, bias=False)
            spectral_norm(layer)  # in place
            return layer

        self.first = _conv(3, width)
        self.down = nn.ModuleList(conv(width * 2**i, width * 2 ** (i + 1), size=4) for i in range(3))
        self.up = nn.ModuleList(conv(width * 2 ** (i + 1), width * 2**i) for i in reversed(range(3)))
        self.last = nn.Sequential(conv(width, width), nn.LeakyReLU(0.2), conv(width, width), nn.LeakyReLU(0.2))
        self.judge = _conv(width, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 8 → logits (N, 1, H, W)."""
        x = images_NCHW.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.first(x), 0.2)  # (N, width, H, W)
        skips = []
        for down in self.down:  # to (N, 8·width, H/8, W/8)
            skips.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for up in self.up:  # and back
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), 0.2) + skips.pop()
        return self.judge(self.last(x))


def rcan_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `RCAN` that these tensors were trained with, read off their names and shapes.

    Raises:
        TimeloomError: they are not an RCAN's.
    """
    blocks = [match for name in tensors if (match := re.fullmatch(r"body\.(\d+)\.body\.(\d+)\.body\.0\.weight", name))]
    needed = ("head.0.weight", "tail.0.0.weight", "body.0.body.0.body.3.conv_du.0.weight")
    if not blocks or any(name not in tensors for name in needed):
        raise TimeloomError("the tensors are not those of an RCAN (head, body, tail)")
    width = tensors["head.0.weight"].shape[0]
    steps = [
        tensor.shape[0] // width for name, tensor in tensors.items() if re.fullmatch(r"tail\.0\.\d+\.weight", name)
    ]
    scale, squeezed = math.isqrt(math.prod(steps)), tensors["body.0.body.0.body.3.conv_du.0.weight"].shape[0]
    if scale not in SCALES or not squeezed:
        raise TimeloomError(f"the tensors are those of an RCAN for scale {scale}; known are 2, 3 and 4")
    shift = tensors.get("sub_mean.bias")
    return {
        "num_groups": 1 + max(int(match[1]) for match in blocks),
        "num_blocks": 1 + max(int(match[2]) for match in blocks),
        "width": width,
        "reduction": width // squeezed,
        "scale": scale,
        "pixel_range": 255.0 if shift is None or shift.abs().max() > 1 else 1.0,
    }


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)


def _enlarge(width: int, scale: int) -> nn.Sequential:
    """Convolutions whose channels become pixels (arXiv 1609.05158): 2x twice for 4, else at once."""
    steps = [2, 2] if scale == 4 else [scale]
    return nn.Sequential(*(part for step in steps for part in (_conv(width, step**2 * width), nn.PixelShuffle(step))))
