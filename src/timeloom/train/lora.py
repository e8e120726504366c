"""Train a low-rank change of a U-Net's weights in place of the weights (LoRA, arXiv 2106.09685), by peft.

What comes of it is an adapter (`timeloom.adapters`), which needs no peft where it is used.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from timeloom.adapters import ADAPTER_FILE, Use, write_adapter
from timeloom.errors import TimeloomError, unknown_name
from timeloom.models.unet import VideoUNet
from timeloom.train.recipe import LoraOptions

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def add_lora(unet: VideoUNet, options: LoraOptions) -> None:
    """Put a low-rank change beside each layer that `target_modules` names. B is zero at first: nothing changes yet.

    Raises:
        TimeloomError: peft is missing, or a name that no convolution or linear layer has.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise TimeloomError("model.lora needs the package peft: pip install 'timeloom[lora]'.") from error
    layers = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    chosen: dict[str, None] = {}
    for target in options.target_modules:
        found = [name for name in layers if name == target or name.endswith("." + target)]
        if not found:
            raise unknown_name("layer in model.lora.target_modules", target, {_ending(name) for name in layers})
        chosen |= dict.fromkeys(found)
    unet.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules=list(chosen)))


def _ending(name: str) -> str:
    """What tells a layer from its neighbours: "conv1", "to_out.0"."""
    *_, parent, own = ["", *name.split(".")]
    return f"{parent}.{own}" if own.isdigit() else own


def save_lora(unet: VideoUNet, folder: Path, use: Use, dtype: str = "fp16") -> None:
    """Write what `add_lora` added, as it is trained by now, as the adapter in `folder`, in numbers of `dtype`.

    Raises:
        TimeloomError: a value beyond the range of fp16.
    """
    from peft import get_peft_model_state_dict

    [(name, config)] = unet.peft_config.items()
    trained = get_peft_model_state_dict(unet, adapter_name=name)
    stored = {key: tensor.to(DTYPES[dtype]) for key, tensor in trained.items()}
    for key, tensor in stored.items():
        if not torch.isfinite(tensor).all():
            raise TimeloomError(f"{key!r} has values that {dtype} cannot hold; run again with model.lora.dtype=fp32.")
    write_adapter(folder / ADAPTER_FILE, use, stored, config.to_dict())
