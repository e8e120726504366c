"""Inception-v3 as the Fréchet inception distance knows it: TensorFlow's weights of December 2015.

The network is Szegedy et al. 2015 (arXiv 1512.00567, Table 1), FID that of Heusel et al. 2017 (arXiv 1706.08500). The
weights of 2015 want three things otherwise than the network of today's libraries: average poolings that leave padding
out, a maximum in place of the average in the very last block, and 1008 classes. Names are those of torchvision and of
`pt_inception-2015-12-05-6726825d.pth`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.errors import unknown_name
from timeloom.evaluate.networks.extractor import Classifier, Source
from timeloom.evaluate.networks.resize import antialiased_bicubic, bilinear, tf1_bilinear
from timeloom.evaluate.networks.weights import KnownFile, check_hash, find_file, load_into, read_tensors

_SIZE, _SHA256 = 95_628_359, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILES = (
    KnownFile("pt_inception-2015-12-05-6726825d.pth", "mseitzer/pytorch-fid on GitHub", _SIZE, _SHA256),
    KnownFile("weights-inception-2015-12-05-6726825d.pth", "toshas/torch-fidelity on GitHub, the same", _SIZE, _SHA256),
)

Resize = Literal["antialias", "tf1", "bilinear"]
_RESIZES = {"antialias": antialiased_bicubic, "tf1": tf1_bilinear, "bilinear": bilinear}


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        return F.relu(self.bn(self.conv(values)))


def _across(inputs: int, outputs: int, length: int) -> Unit:
    return Unit(inputs, outputs, (1, length), padding=(0, length // 2))


def _down(inputs: int, outputs: int, length: int) -> Unit:
    return Unit(inputs, outputs, (length, 1), padding=(length // 2, 0))


def average(values: Tensor) -> Tensor:
    """The mean of each pixel's 3×3 neighbours that are inside the image."""
    return F.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35×35: 1×1, 5×5, twice 3×3, and pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = Unit(inputs, 48), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pooled)

    def forward(self, values: Tensor) -> Tensor:
        """Channels of the branches one after the other, as in all blocks."""
        five = self.branch5x5_2(self.branch5x5_1(values))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(values)))
        return torch.cat((self.branch1x1(values), five, double, self.branch_pool(average(values))), dim=1)


class BlockB(nn.Module):
    """35×35 to 17×17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, values: Tensor) -> Tensor:
        """Half the size."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(values)))
        return torch.cat((self.branch3x3(values), double, F.max_pool2d(values, 3, stride=2)), dim=1)


class BlockC(nn.Module):
    """17×17: 7×7 in pieces of 1×7 and 7×1, `width` channels within."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 192)
        self.branch7x7_1, self.branch7x7_2 = Unit(inputs, width), _across(width, width, 7)
        self.branch7x7_3 = _down(width, 192, 7)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(inputs, width), _down(width, width, 7)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _across(width, width, 7), _down(width, width, 7)
        self.branch7x7dbl_5 = _across(width, 192, 7)
        self.branch_pool = Unit(inputs, 192)

    def forward(self, values: Tensor) -> Tensor:
        """The same size."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(values)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(values)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(values), seven, double, self.branch_pool(average(values))), dim=1)


class BlockD(nn.Module):
    """17×17 to 8×8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(inputs, 192), Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Unit(inputs, 192), _across(192, 192, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = _down(192, 192, 7), Unit(192, 192, 3, stride=2)

    def forward(self, values: Tensor) -> Tensor:
        """Half the size."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(values))))
        three = self.branch3x3_2(self.branch3x3_1(values))
        return torch.cat((three, seven, F.max_pool2d(values, 3, stride=2)), dim=1)


class BlockE(nn.Module):
    """8×8: branches that fork. `maximum`: the pooling takes the largest neighbour, as the last block of 2015 does."""

    def __init__(self, inputs: int, maximum: bool) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 320)
        self.branch3x3_1 = Unit(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = _across(384, 384, 3), _down(384, 384, 3)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 448), Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _across(384, 384, 3), _down(384, 384, 3)
        self.branch_pool = Unit(inputs, 192)
        self.maximum = maximum

    def forward(self, values: Tensor) -> Tensor:
        """The same size."""
        three = self.branch3x3_1(values)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(values))
        pooled = F.max_pool2d(values, 3, stride=1, padding=1) if self.maximum else average(values)
        branches = (
            self.branch1x1(values),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )
        return torch.cat(branches, dim=1)


class InceptionV3(nn.Module):
    """Images (B, 3, 299, 299) in −1…1 to features (B, 2048)."""

    def __init__(self, num_classes: int = 1008) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)  # 299 → 149
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)  # 147, pooled to 73
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)  # 71, pooled to 35
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a, self.Mixed_6b = BlockB(288), BlockC(768, 128)
        self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, maximum=False), BlockE(2048, maximum=True)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Features: the last block, averaged over the image."""
        values = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        values = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(values, 3, stride=2)))
        values = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(values, 3, stride=2))))
        values = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(values)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(values))).mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """(B, num_classes), without the bias: so the inception score has them from its first code on (2016)."""
        return F.linear(features, self.fc.weight)


class InceptionFeatures(Classifier):
    """2048 features a frame, and its logits for the inception score."""

    name: ClassVar[str] = "inception"
    takes: ClassVar[Literal["frames", "clips"]] = "frames"
    dimension: ClassVar[int] = 2048
    num_classes: ClassVar[int] = 1008
    side: ClassVar[int] = 299

    network: InceptionV3

    def __init__(self, network: InceptionV3, source: Source, resize: Resize = "antialias", **options: Any) -> None:
        if resize not in _RESIZES:
            raise unknown_name("way to resize for Inception", resize, _RESIZES)
        super().__init__(network, source, **options)
        self.resize = resize
        self.pixels = "-1...1" if resize == "bilinear" else "(x - 128) / 128"

    def _prepare(self, items: Tensor) -> Tensor:
        images = _RESIZES[self.resize](items.permute(0, 3, 1, 2).float(), self.side, self.side)
        return images / 127.5 - 1 if self.resize == "bilinear" else (images - 128) / 128

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network(prepared)

    def _logits(self, prepared: Tensor) -> Tensor:
        return self.network.logits(self.network(prepared))


def load_inception(weights: Path | None = None, resize: Resize = "antialias", **options: Any) -> InceptionFeatures:
    """FID's Inception-v3 from a file of `FILES`, or a .safetensors file of the same names.

    Args:
        weights: the file, or its folder; None looks where weights are kept.
        resize: "antialias" as in Clean-FID: Pillow's bicubic. "tf1" as in the 2015 graph itself and in StyleGAN's
            metrics. "bilinear" as in pytorch-fid, which also scales 0…255 to −1…1 where the others map 128 to 0.
        options: `device` and `batch_size` of the extractor.

    Raises:
        TimeloomError: no such file, another's weights, a wrong hash.
    """
    source = check_hash(find_file("FID's Inception-v3", FILES, weights), FILES)
    with torch.device("meta"):
        network = InceptionV3()
    load_into(network, "FID's Inception-v3 (2015)", read_tensors(source.path), source.path)
    return InceptionFeatures(network, source, resize, **options)
