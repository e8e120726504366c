"""Tensors of a TorchScript archive (`torch.jit.save`), read without running anything in it.

The archive is a zip: `code/` holds a program, `data.pkl` the tree of modules with their attributes, and `data/0`,
`data/1`, ... the bytes of the tensors. `torch.jit.load` would compile the program, which a stranger wrote. Here the
tree is unpickled by a reader that knows modules, tensors and lists, refuses everything else, and leaves `code/` alone.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timeloom.errors import TimeloomError
from timeloom.weight_files import Stored

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class _Refused(Exception):
    """The pickle asks for something that is no part of a tree of tensors."""


class _Module:
    """Any class of the program: only its attributes matter."""

    def __init__(self, *_: Any) -> None:
        self.attributes: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


def is_torchscript(path: Path) -> bool:
    """Whether `path` is such an archive; weights that `torch.save` wrote have no constants beside them."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Stored]:
    """The tensors by the names of their places in the tree, as `state_dict` of the loaded module would give them.

    Raises:
        TimeloomError: damaged, cut short, or its tree asks for more than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            with archive.open(root) as file:
                tree = _Tree(file, archive, root.removesuffix("data.pkl")).load()
            return {name: Stored(path, name, tensor) for name, tensor in _tensors(tree, "", set())}
    except _Refused as error:
        raise TimeloomError(
            f"{path} is a TorchScript archive whose tree asks for {error}, which is no part of a network's weights; "
            "nothing of it was run or loaded."
        ) from error
    except Exception as error:  # a pickle of a stranger may fail in every way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TimeloomError(f"{path} is damaged or cut short; fetch it again. ({reason})") from error


class _Tree(pickle.Unpickler):
    """`data.pkl`, with nothing to call but what makes a module, a tensor, a list or a dictionary."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: torch.as_strided(
                storage, size, stride, offset
            ),
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            ("collections", "OrderedDict"): lambda *pairs: dict(*pairs),
            ("torch", "device"): lambda *parts: parts,
            **{("torch.jit._pickle", build): lambda values: list(values) for build in _LISTS},
        }
        if (module, name) not in known:
            raise _Refused(f"{module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, flat, as a tensor."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused(f"an object of kind {kind!r}")
        if key not in self._storages:
            member = self._archive.getinfo(f"{self._root}data/{key}")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size < count * dtype.itemsize:
                raise ValueError(f"data/{key} holds fewer than the {count} numbers of its tensor")
            content = bytearray(self._archive.read(member))
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _tensors(node: Any, name: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that is a module's attribute, with its name."""
    if not isinstance(node, _Module) or not isinstance(node.attributes, dict) or id(node) in above:
        return
    for key, value in node.attributes.items():
        if isinstance(value, Tensor):
            yield f"{name}{key}", value
        else:
            yield from _tensors(value, f"{name}{key}.", above | {id(node)})
