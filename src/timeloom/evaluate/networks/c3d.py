"""C3D of UCF-101, whose 101 classes are those of the inception score of video (TGAN, arXiv 1611.06624).

The network is C3D (Tran et al. 2015, arXiv 1412.0767, Fig. 3), finetuned by its authors in Caffe; TGANv2 (arXiv
1811.09245) published it as `conv3d_deepnetA_ucf.npz`, with the mean of the training clips as `mean2.npz`. StyleGAN-V's
`c3d_ucf101.pt` is a TorchScript copy of these two.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.extractor import Classifier
from timeloom.evaluate.networks.resize import corner_bilinear
from timeloom.evaluate.networks.weights import KnownFile, check_hash, find_file, load_into, read_tensors
from timeloom.weight_files import Stored

MEAN_FILE = "mean2.npz"
FILES = (
    KnownFile("conv3d_deepnetA_ucf.npz", f"TGANv2, rezoo/tgan2 on GitHub, release v1.0, with {MEAN_FILE} beside it"),
    KnownFile("c3d_ucf101.pt", "StyleGAN-V"),
)
MEAN_SHAPE = (3, 16, 112, 112)

CONVOLUTIONS = {
    "conv1a": (3, 64),
    "conv2a": (64, 128),
    "conv3a": (128, 256),
    "conv3b": (256, 256),
    "conv4a": (256, 512),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}
"""Channels in and out; the last of each number is followed by a max pooling."""


class C3D(nn.Module):
    """Videos (B, 3, 16, 112, 112), BGR in 0…255, to 101 logits; `mean` is taken off them first."""

    mean: Tensor

    def __init__(self, num_classes: int = 101) -> None:
        super().__init__()
        for name, (inputs, outputs) in CONVOLUTIONS.items():
            self.add_module(name, nn.Conv3d(inputs, outputs, 3, padding=1))
        self.fc6 = nn.Linear(512 * 4 * 4, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.register_buffer("mean", torch.zeros(MEAN_SHAPE))

    def features(self, videos: Tensor) -> Tensor:
        """(B, 4096): the last hidden layer, after its ReLU."""
        values = videos - self.mean
        names = [*CONVOLUTIONS, "end"]
        for name, following in zip(CONVOLUTIONS, names[1:], strict=True):
            values = F.relu(self.get_submodule(name)(values))
            if name[:5] != following[:5]:
                values = pool(values, (1 if name == "conv1a" else 2, 2, 2))
        return F.relu(self.fc7(F.relu(self.fc6(values.flatten(1)))))

    def forward(self, videos: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        return self.fc8(self.features(videos))


def pool(values: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """Max pooling as Caffe's: what is left over at the end of an axis makes a window of its own, so 7 becomes 4."""
    return F.max_pool3d(values, kernel, kernel, ceil_mode=True)


class C3DFeatures(Classifier):
    """4096 features a clip of 16 frames, and its logits for the classes of UCF-101, in the order of `classInd.txt`."""

    name: ClassVar[str] = "c3d"
    takes: ClassVar[Literal["frames", "clips"]] = "clips"
    dimension: ClassVar[int] = 4096
    num_classes: ClassVar[int] = 101
    side: ClassVar[int] = 112
    min_frames: ClassVar[int] = 16
    max_frames: ClassVar[int | None] = 16
    resize = "corners"
    pixels = "0...255, BGR, less the mean of the training clips"

    network: C3D

    def _prepare(self, items: Tensor) -> Tensor:
        frames = items.flatten(0, 1).permute(0, 3, 1, 2).flip(1).float()
        frames = corner_bilinear(frames, self.side, self.side)
        return frames.unflatten(0, items.shape[:2]).transpose(1, 2)

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network.features(prepared)

    def _logits(self, prepared: Tensor) -> Tensor:
        return self.network(prepared)


def load_c3d(weights: Path | None = None, **options: Any) -> C3DFeatures:
    """C3D of UCF-101 from TGANv2's pair of .npz files, or a file with our names (`conv1a.weight`, ..., `mean`).

    The names inside `c3d_ucf101.pt` are not published. If they are not ours, the file is refused with its names.

    Args:
        weights: the file, or its folder; None looks where weights are kept.
        options: `device` and `batch_size` of the extractor.

    Raises:
        TimeloomError: no such file, another's weights, a wrong hash.
    """
    path = find_file("C3D", FILES, weights)
    source = check_hash(path, FILES)
    tensors = _read_npz(path) if path.suffix == ".npz" else read_tensors(path)
    with torch.device("meta"):
        network = C3D()
    load_into(network, "C3D of UCF-101", tensors, path)
    return C3DFeatures(network, source, **options)


def _read_npz(path: Path) -> dict[str, Stored]:
    """TGANv2's pair: Chainer's names, and the mean (3, 16, 128, 171), BGR, of which the network sees a window."""
    beside = path.with_name(MEAN_FILE)
    if not beside.is_file():
        raise TimeloomError(f"{path} needs {MEAN_FILE} of the same release beside it: the mean of the training clips.")
    mean = _arrays(beside).get("mean")
    if mean is None or mean.size != 3 * 16 * 128 * 171:
        raise TimeloomError(f"{beside} must hold the mean of clips of 16 frames of 128×171, under the name 'mean'.")
    arrays = {"mean": mean.reshape(3, 16, 128, 171)[:, :, 8:120, 8:120].copy()}
    for name, array in _arrays(path).items():
        arrays[name.replace("/W", ".weight").replace("/b", ".bias")] = array
    return {name: Stored(path, name, torch.from_numpy(array)) for name, array in arrays.items()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TimeloomError(f"{path} is no whole .npz file of arrays; fetch it again. ({reason})") from error
