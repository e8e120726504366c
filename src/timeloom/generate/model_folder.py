"""A model folder, checked: the Stable Diffusion layout, safetensors alone, every tensor there, right and finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, SchedulerMixin
from torch import nn

from timeloom import zoo
from timeloom.adapters import Adapter, apply_adapter
from timeloom.errors import TimeloomError
from timeloom.model_files import INDEX, PICKLES, fetched, read_json, text_encoder_of
from timeloom.models.unet import VideoUNet
from timeloom.network_files import load_network, require_finite

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
    if snapshot := fetched(str(name_or_path)):
        return snapshot
    raise TimeloomError(
        f"No model folder {str(name_or_path)!r}, and the local Hub cache has none of that name. "
        f"Give the path of a folder, or fetch it first: hf download {name_or_path}"
    )


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
            f"beside it. Make a model of safetensors first: timeloom model convert {folder.parent} NEW"
        )
    raise TimeloomError(f"{folder} has no weights: a .safetensors file is missing.")


def load_part(
    folder: Path, index: dict[str, Any], part: str, dtype: torch.dtype, variant: str | None = None, **changes: Any
) -> nn.Module:
    """Load one network of a model folder ("unet", "vae" or "text_encoder"), checked as `load_network` does."""
    network = DIFFUSERS_OWN.get(part) or text_encoder_of(folder, index).network
    return load_network(network, folder / part, dtype, variant, **changes)


def load_adapted_unet(
    folder: Path, index: dict[str, Any], dtype: torch.dtype, variant: str | None, adapter: Adapter, scale: float
) -> nn.Module:
    """Load the U-Net with an adapter's mechanism switched on, and `scale` times its changes added to the weights.

    Raises:
        TimeloomError: as `load_part`, or the adapter is for another family of models.
    """
    config = read_json(folder / "unet" / "config.json")
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    adapter.require_use(config.get("temporal", "none"), schedule.get("prediction_type", "epsilon"))
    unet = load_part(folder, index, "unet", dtype, variant, **adapter.use.mechanism)
    apply_adapter(unet, adapter, scale)
    require_finite(folder / "unet", unet)
    return unet


def load_scheduler(folder: Path, index: dict[str, Any]) -> SchedulerMixin:
    """The scheduler of a model, of the diffusers class that the index names."""
    name = index["scheduler"][-1]
    scheduler_class = getattr(diffusers, str(name), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)):
        raise TimeloomError(f"{folder / INDEX} names the scheduler {name!r}, which diffusers does not have.")
    read_json(folder / "scheduler" / "scheduler_config.json")
    return getattr(diffusers, name).from_pretrained(folder / "scheduler")
