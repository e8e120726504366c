"""Tensors that were computed once and are kept in files.

One file a tensor, as a data set has one file a clip: written under another name and renamed, so that many processes
may write at once and none sees half a file; with a digest of its values, checked whenever it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError

DIGEST_BYTES = 16
FORMAT = 1  # of the files and of what their names say; another number makes them anew


class DamagedFile(TimeloomError):
    """A file of the cache whose values are not those that were written."""


class TensorCache:
    """A folder of tensors of any dtype, each under the name of what it was computed from.

    Args:
        folder: made when the first tensor is put.
        settings: all that decides the values besides the item itself: networks, precision.
    """

    def __init__(self, folder: Path, *settings: Any) -> None:
        self.folder = folder / _name(FORMAT, *settings)

    def path(self, *item: Any) -> Path:
        """Where the tensor of an item is kept."""
        name = _name(*item)
        return self.folder / name[:2] / f"{name}.safetensors"

    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*.safetensors"))

    @staticmethod
    def read(path: Path) -> Tensor | None:
        """The tensor as it was put; None where there is none. Raises DamagedFile."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedFile(f"{path}: cannot be read ({error.strerror}).") from error
        try:
            stored = safetensors.torch.load(content)
            value, digest = stored["value"], bytes(stored["digest"].tolist())
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DamagedFile(f"{path}: is damaged.") from error
        if digest != _digest(value):
            raise DamagedFile(f"{path}: is damaged.")
        return value

    def get(self, path: Path) -> Tensor | None:
        """As `read`; a damaged file is told on stderr and removed, so that it is made again."""
        try:
            return self.read(path)
        except DamagedFile as error:
            print(f"{error} It is made again.", file=sys.stderr)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    @staticmethod
    def put(path: Path, value: Tensor) -> None:
        """Keep a tensor, in its dtype. Raises OSError where the disk is full or may not be written."""
        value = value.detach().cpu().contiguous()
        digest = torch.frombuffer(bytearray(_digest(value)), dtype=torch.uint8)
        content = safetensors.torch.save({"value": value, "digest": digest})
        with whole_file(path, durable=False) as file:  # a damaged one is found by its digest
            file.write(content)


def fingerprint(network: nn.Module) -> str:
    """A digest of a network's configuration and of all its values."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    config = getattr(network, "config", {})
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    kept = {key: value for key, value in config.items() if not key.startswith("_") and "version" not in key}
    digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _name(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=DIGEST_BYTES).hexdigest()


def _digest(value: Tensor) -> bytes:
    said = f"{value.dtype} {tuple(value.shape)}".encode()
    return hashlib.blake2b(_bytes(value), key=hashlib.blake2b(said).digest(), digest_size=DIGEST_BYTES).digest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
