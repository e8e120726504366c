"""Tensors from files: safetensors, or PyTorch's pickles through a load that lets nothing but weights in.

Both are mapped, not read: a tensor's values come from the disk when they are first touched.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from timeloom.errors import TimeloomError
from timeloom.model_files import PICKLES, read_json

READING_ERRORS = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(struct.error, AssertionError),
)
"""What `torch.load` raises for files that are cut short or are something else, beside its own UnpicklingError."""
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Stored:
    """A tensor, and where it came from."""

    file: Path
    key: str
    """Its name in the file."""
    tensor: Tensor


def read_weights(path: Path) -> tuple[dict[str, Stored], list[str]]:
    """The tensors of one file by their names, and the names of what else a pickle holds (optimizer states, ...).

    Raises:
        TimeloomError: the file is neither format, is damaged or cut short, or is a pickle that asks to run code.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path), []
    if path.suffix in PICKLES:
        return _read_pickle(path)
    raise TimeloomError(f"{path}: weights are a .safetensors file, or one of PyTorch's ({', '.join(PICKLES)}).")


def _read_safetensors(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: Stored(path, key, file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> tuple[dict[str, Stored], list[str]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if "nsupported" not in str(error) or (asked and _ends_within(path, asked[1].rpartition(".")[2])):
            raise _damaged(path, ValueError("its pickle cannot be read")) from error
        raise TimeloomError(
            f"{path} is a pickle that holds more than weights (it asks for {asked[1] if asked else 'other objects'}), "
            "and such a file can run any code; nothing of it was loaded. Use a .safetensors file of this model."
        ) from error
    except READING_ERRORS as error:
        raise _damaged(path, error) from error
    beside: list[str] = []
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        beside += [str(key) for key in content if key != "state_dict"]
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise TimeloomError(f"{path} holds no dictionary of tensors.")
    tensors = {str(key): Stored(path, str(key), value) for key, value in content.items() if isinstance(value, Tensor)}
    return tensors, beside + [str(key) for key, value in content.items() if not isinstance(value, Tensor)]


def _ends_within(pickled: Path, name: str) -> bool:
    """Whether the file ends in the middle of a name, of which the unpickler told all but the last letter."""
    with pickled.open("rb") as file:
        file.seek(max(0, pickled.stat().st_size - len(name) - 1))
        return file.read().startswith(name.encode())


def _damaged(path: Path, error: Exception) -> TimeloomError:
    reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return TimeloomError(f"{path} is damaged or cut short; fetch it again. ({reason})")


def find_weights(folder: Path, variant: str | None) -> list[Path]:
    """The files that hold the weights of the network in `folder`; `variant` "fp16" means `*.fp16.safetensors`.

    A folder may hold them in several forms: safetensors go before pickles, and whole files before shards.

    Raises:
        TimeloomError: no such file, or a shard that is named and is not there.
    """
    infix = f".{variant}" if variant else ""
    for suffix in ("safetensors", "bin"):
        for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
            if (whole := folder / f"{stem}{infix}.{suffix}").is_file():
                return [whole]
            if (index := folder / f"{stem}.{suffix}.index{infix}.json").is_file():
                return _shards(index)
    found = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", *PICKLES))
    hint = f" There is {', '.join(found)}: --variant fp16 takes *.fp16.safetensors." if found else ""
    wanted = f"of variant {variant!r} " if variant else ""
    raise TimeloomError(f"{folder} holds no weights {wanted}in a file of the usual name.{hint}")


def _shards(index: Path) -> list[Path]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise TimeloomError(f"{index} names the file {name!r}, which is not beside it.")
    return [index.parent / name for name in names]


def usable(stored: Stored, dtype: torch.dtype | None) -> Tensor:
    """The tensor in `dtype`, or as it is stored, once its values are known to be finite.

    Raises:
        TimeloomError: a value that is not finite, before or after; or a stored type that networks do not compute in.
    """
    tensor = stored.tensor
    where = f"{stored.file}: the tensor {stored.key!r}"
    if not tensor.is_floating_point() or (dtype is None and tensor.dtype not in DTYPES.values()):
        raise TimeloomError(
            f"{where} is stored as {str(tensor.dtype).removeprefix('torch.')}, in which no network here computes"
            + ("; choose one of fp16, bf16, fp32 with --dtype." if tensor.is_floating_point() else ".")
        )
    if tensor.itemsize == 1:
        tensor = tensor.float()  # 8-bit numbers lack isfinite
    if not torch.isfinite(tensor).all():
        raise TimeloomError(f"{where} has values that are not finite.")
    changed = tensor if dtype is None else tensor.to(dtype)
    if changed.dtype == torch.float16 and changed is not tensor and not torch.isfinite(changed).all():
        raise TimeloomError(f"{where} has values beyond the range of fp16; use --dtype bf16.")
    return changed.contiguous()
