"""One network from its folder of safetensors, checked: every tensor there, of the right shape, and finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.model_files import first_line, read_json


def load_network(
    network: Any, folder: Path, dtype: torch.dtype = torch.float32, variant: str | None = None, **changes: Any
) -> nn.Module:
    """The network in `folder` (a part of a model folder), in evaluation mode.

    Args:
        network: its class, of diffusers or transformers.
        dtype: numbers that it computes in, whatever the files store.
        variant: "fp16" loads `*.fp16.safetensors`.
        changes: options that are to differ from its config.

    Raises:
        TimeloomError: a damaged file; a missing, extra or wrongly shaped tensor; a value that is not finite.
    """
    read_json(folder / "config.json")
    try:
        loaded, info = network.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, tensor by tensor
            output_loading_info=True,
            **changes,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise TimeloomError(f"Cannot load the {folder.name} in {folder}: {first_line(error)}") from error
    _require_complete(folder, info)
    require_finite(folder, loaded)
    if isinstance(loaded, ModelMixin):
        loaded.register_to_config(_name_or_path=folder.parent.name)  # no path of this machine: it is saved again
    return loaded.eval()


def _require_complete(folder: Path, info: dict[str, Any]) -> None:
    for name, found, wanted in sorted(info["mismatched_keys"]):
        raise TimeloomError(
            f"{weights_file(folder, name)}: the tensor {name!r} has the shape {tuple(found)}, "
            f"and its config wants {tuple(wanted)}."
        )
    for keys, problem in (
        (info["missing_keys"], "lacks the tensor"),
        (info["unexpected_keys"], "holds what the network has no place for, the tensor"),
    ):
        if keys:
            first = min(keys)
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise TimeloomError(f"{weights_file(folder, first)} {problem} {first!r}{more}.")


def require_finite(folder: Path, network: nn.Module) -> None:
    """Raise TimeloomError, naming the file and the tensor, for a value that is not finite."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TimeloomError(f"{weights_file(folder, name)}: the tensor {name!r} has values that are not finite.")


def weights_file(folder: Path, tensor: str) -> Path:
    """The file that holds, or should hold, a tensor of the network in `folder`."""
    for index in folder.glob("*.safetensors.index.json"):
        shard = read_json(index).get("weight_map", {}).get(tensor)
        return folder / shard if shard else index
    return min(folder.glob("*.safetensors"), default=folder)
