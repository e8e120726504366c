"""Frames made larger by a trained network, whole frames at a time and large ones in parts.

    upscaler = Upscaler.from_pretrained("digits-upscaler")
    large = upscaler.enlarge(frames)                # uint8 (F, H, W, 3) → (F, 4·H, 4·W, 3)

`timeloom upscale` and the pipeline of `timeloom generate` both call this. Axes: N frames, C channels, H, W.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timeloom import zoo
from timeloom.data.clip import Frames
from timeloom.errors import TimeloomError
from timeloom.model_files import INDEX, PICKLES, quiet_libraries, read_json
from timeloom.models.rcan import RCAN, rcan_config
from timeloom.weight_files import Stored, find_weights, read_weights, usable

PART = "upscaler"
"""Its folder within a model folder."""
TILE = 128
"""Small pixels of a part's side. Larger parts are no faster, and need memory by the square."""


class Upscaler:
    """A network that makes frames larger, in evaluation mode.

    Args:
        network: on the device and in the numbers that it is to compute in.
        tile: side in pixels of the parts in which large frames are put together; parts overlap by what the network
            sees, so they change no pixel.
        self_ensemble: give the mean of what becomes of a frame's eight turned and mirrored copies, in eight times the
            time: the authors' RCAN+ (arXiv 1807.02758).
    """

    def __init__(self, network: RCAN, tile: int = TILE, self_ensemble: bool = False) -> None:
        if tile < 1:
            raise TimeloomError(f"A tile has at least 1 pixel, not {tile}.")
        self.network = network.eval()
        self.tile = tile
        self.self_ensemble = self_ensemble

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tile: int = TILE,
        self_ensemble: bool = False,
    ) -> Upscaler:
        """A model of the zoo, a model folder, or a file of RCAN weights under their authors' names.

        Raises:
            TimeloomError: there is no such model, or it is no upscaler, or a tensor is missing, extra, of another shape
                or not finite.
        """
        with quiet_libraries():
            network = load_rcan(name_or_path).to(device, dtype).to(memory_format=torch.channels_last)  # the faster one
        return cls(network, tile, self_ensemble)

    @property
    def scale(self) -> int:
        return int(self.network.config.scale)

    @torch.no_grad()
    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → fp32 (N, 3, S·H, S·W) in [0, 1], on the network's device.

        Raises:
            TimeloomError: pixels that are not finite.
        """
        enlarge = self._ensemble if self.self_ensemble else self._together
        return torch.cat([enlarge(part) for part in images_NCHW.split(self.at_once(*images_NCHW.shape[-2:]))])

    def at_once(self, height: int, width: int) -> int:
        """Frames of this size that go through the network together: few, however large the tiles."""
        return max(1, min(self.tile, TILE) ** 2 // (height * width))

    def enlarge(self, frames: Frames) -> Frames:
        """uint8 (F, H, W, 3) → uint8 (F, S·H, S·W, 3)."""
        images = torch.tensor(frames, device=self.network.device).permute(0, 3, 1, 2)
        return to_bytes(self(images.float() / 255))

    def _ensemble(self, images: Tensor) -> Tensor:
        ways = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]
        made = (_back(self._together(_turn(images, *way)), *way) for way in ways)
        return functools.reduce(Tensor.add_, made) / len(ways)

    def _together(self, images: Tensor) -> Tensor:
        device = self.network.device
        features = self.network.extract(images.to(device, torch.float32))
        height, width = features.shape[-2:]
        if max(height, width) <= self.tile:
            large = self.network.reconstruct(features)
        else:
            scale, reach = self.scale, self.network.tail_reach
            large = features.new_empty((len(features), 3, height * scale, width * scale), dtype=torch.float32)
            for top, bottom, above in _parts(height, self.tile, reach):
                for left, right, before in _parts(width, self.tile, reach):
                    part = features[..., above : bottom + reach, before : right + reach]
                    pixels = self.network.reconstruct(part)[..., (top - above) * scale :, (left - before) * scale :]
                    size = (bottom - top) * scale, (right - left) * scale
                    target = large[..., top * scale : bottom * scale, left * scale : right * scale]
                    target.copy_(pixels[..., : size[0], : size[1]])
        if not torch.isfinite(large).all():
            raise TimeloomError("The upscaler gives pixels that are not finite; try --precision fp32.")
        return large.clamp_(0, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder: an index, and the network in `upscaler/`."""
        self.network.save_pretrained(Path(folder) / PART, safe_serialization=True)
        index = {"_class_name": "Upscaler", PART: ["timeloom.models.rcan", "RCAN"]}
        (Path(folder) / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def to_bytes(images_NCHW: Tensor) -> Frames:
    """(N, 3, H, W) in [0, 1] → uint8 (N, H, W, 3)."""
    return (images_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def bicubic(images_NCHW: Tensor, scale: int) -> Tensor:
    """What every network is compared with: (N, 3, H, W) in [0, 1] → (N, 3, S·H, S·W) in [0, 1]."""
    large = torch.nn.functional.interpolate(images_NCHW, scale_factor=scale, mode="bicubic", align_corners=False)
    return large.clamp_(0, 1)


def load_rcan(name_or_path: str | Path) -> RCAN:
    """The network, as `Upscaler.from_pretrained`, on the CPU in fp32."""
    path = Path(name_or_path).expanduser()
    if path.is_file() and path.suffix in (".safetensors", *PICKLES):
        tensors = read_weights(path)[0]
        try:
            config = rcan_config({name: stored.tensor for name, stored in tensors.items()})
        except TimeloomError as error:
            raise TimeloomError(f"{path}: {error}.") from error
        return _filled(RCAN(**config), tensors, path)
    folder = zoo.resolve(name_or_path)
    if not (folder / PART).is_dir():
        raise TimeloomError(f"{folder} holds no {PART}/: it is not a model that makes frames larger.")
    config = read_json(folder / PART / "config.json")
    try:
        network = RCAN.from_config(config)
    except (TimeloomError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TimeloomError(f"{folder / PART / 'config.json'}: {error}") from error
    tensors = {}
    for file in find_weights(folder / PART, None):
        tensors |= read_weights(file)[0]
    return _filled(network, tensors, folder / PART)


def require_scale(network: RCAN, scale: int | None, what: str | Path) -> None:
    """Raise TimeloomError where `scale` is given and the network's is another."""
    if scale is not None and network.config.scale != scale:
        raise TimeloomError(f"{what} makes frames {network.config.scale} times larger, not {scale} times.")


def _filled(network: RCAN, tensors: dict[str, Stored], where: Path) -> RCAN:
    """The network with these values; its fixed shifts of colour may be missing."""
    own: dict[str, Any] = network.state_dict()
    missing = sorted(name for name in own.keys() - tensors.keys() if "_mean." not in name)
    for problem, names in (
        ("lacks", missing),
        ("holds what the network has no place for,", sorted(tensors.keys() - own.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise TimeloomError(f"{where} {problem} the tensor {names[0]!r}{more}.")
    for name, stored in tensors.items():
        if stored.tensor.shape != own[name].shape:
            found, wanted = tuple(stored.tensor.shape), tuple(own[name].shape)
            hint = " Were the weights trained for another scale?" if name.startswith("tail") else ""
            raise TimeloomError(
                f"{where}: the tensor {name!r} has the shape {found}, and its config wants {wanted}.{hint}"
            )
    network.load_state_dict({name: usable(stored, torch.float32) for name, stored in tensors.items()}, strict=False)
    return network


def _turn(images: Tensor, quarters: int, mirrored: bool) -> Tensor:
    turned = images.rot90(quarters, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _back(images: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """Undo `_turn`."""
    return (images.flip(-1) if mirrored else images).rot90(-quarters, (-2, -1))


def _parts(length: int, tile: int, reach: int) -> Iterator[tuple[int, int, int]]:
    """(first, end, where reading begins) of each part of a side."""
    for first in range(0, length, tile):
        yield first, min(first + tile, length), max(0, first - reach)
