"""A model folder, checked: the Stable Diffusion layout, safetensors alone, every tensor there, right and finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, ModelMixin, SchedulerMixin
from safetensors import SafetensorError
from torch import nn

from timeloom import zoo
from timeloom.adapters import Adapter, apply_adapter
from timeloom.errors import TimeloomError
from timeloom.model_files import INDEX, PICKLES, first_line, read_json, text_encoder_of
from timeloom.models.unet import VideoUNet

NETWORKS = ("unet", "vae", "text_encoder")
DIFFUSERS_OWN: dict[str, Any] = {"unet": VideoUNet, "vae": AutoencoderKL}


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model: a folder, the name of a zoo model, or a Hub id whose files are already in the local cache.

    Raises:
        TimeloomError: none of the three.
    """
    try:
        return Path(zoo.resolve(str(name_or_path)))
    except TimeloomError:
        if str(name_or_path).count("/") != 1 or Path(name_or_path).exists():
            raise
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name_or_path), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise TimeloomError(
            f"No model folder {str(name_or_path)!r}, and the local Hub cache has none of that name. "
            f"Give the path of a folder, or fetch it first: hf download {name_or_path}"
        ) from error


def check_layout(folder: Path) -> dict[str, Any]:
    """The folder's index, after checking that each part is there and that weights are safetensors.

    Raises:
        TimeloomError: no index, a part missing, or weights that are only pickled.
    """
    index = read_json(folder / INDEX)
    for part in (*NETWORKS, "tokenizer", "scheduler"):
        if part not in index:
            raise TimeloomError(f"{folder / INDEX} names no {part}: it is not the index of a Stable Diffusion model.")
        if not (folder / part).is_dir():
            raise TimeloomError(f"The model {folder} has no folder {part!r}.")
        if part in NETWORKS:
            _check_weights_file(folder / part)
    text_encoder_of(folder, index)
    return index


def _check_weights_file(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise TimeloomError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is loaded, and no safetensors file is "
            "beside it. Convert it to safetensors first."
        )
    raise TimeloomError(f"{folder} has no weights: a .safetensors file is missing.")


def load_network(
    folder: Path, index: dict[str, Any], part: str, dtype: torch.dtype, variant: str | None = None, **changes: Any
) -> nn.Module:
    """Load one network ("unet", "vae" or "text_encoder") strictly and in evaluation mode; `changes` are options of the
    U-Net that are to differ from its config.

    Raises:
        TimeloomError: a damaged file; a missing, extra or wrongly shaped tensor; a value that is not finite.
    """
    read_json(folder / part / "config.json")
    network_class = DIFFUSERS_OWN.get(part) or text_encoder_of(folder, index).network
    try:
        network, info = network_class.from_pretrained(
            folder,
            subfolder=part,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, tensor by tensor
            output_loading_info=True,
            **changes,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise TimeloomError(f"Cannot load the {part} in {folder / part}: {first_line(error)}") from error
    _require_complete(folder / part, info)
    _require_finite(folder / part, network)
    if isinstance(network, ModelMixin):
        network.register_to_config(_name_or_path=folder.name)  # not the path on this machine: it would be saved again
    return network.eval()


def load_adapted_unet(
    folder: Path, index: dict[str, Any], dtype: torch.dtype, variant: str | None, adapter: Adapter, scale: float
) -> nn.Module:
    """Load the U-Net with an adapter's mechanism switched on, and `scale` times its changes added to the weights.

    Raises:
        TimeloomError: as `load_network`, or the adapter is for another family of models.
    """
    config = read_json(folder / "unet" / "config.json")
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    adapter.require_use(config.get("temporal", "none"), schedule.get("prediction_type", "epsilon"))
    unet = load_network(folder, index, "unet", dtype, variant, **adapter.use.mechanism)
    apply_adapter(unet, adapter, scale)
    _require_finite(folder / "unet", unet)
    return unet


def load_scheduler(folder: Path, index: dict[str, Any]) -> SchedulerMixin:
    """The scheduler of a model, of the diffusers class that the index names."""
    name = index["scheduler"][-1]
    scheduler_class = getattr(diffusers, str(name), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)):
        raise TimeloomError(f"{folder / INDEX} names the scheduler {name!r}, which diffusers does not have.")
    read_json(folder / "scheduler" / "scheduler_config.json")
    return getattr(diffusers, name).from_pretrained(folder / "scheduler")


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


def _require_finite(folder: Path, network: nn.Module) -> None:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TimeloomError(f"{weights_file(folder, name)}: the tensor {name!r} has values that are not finite.")


def weights_file(folder: Path, tensor: str) -> Path:
    """The file that holds, or should hold, a tensor of the network in `folder`."""
    for index in folder.glob("*.safetensors.index.json"):
        shard = read_json(index).get("weight_map", {}).get(tensor)
        return folder / shard if shard else index
    return min(folder.glob("*.safetensors"), default=folder)
