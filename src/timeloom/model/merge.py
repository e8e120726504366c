"""Adapters and whole models: an adapter folded into a model, and what training changed in a model as an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timeloom.adapters import Adapter, Use, family
from timeloom.errors import TimeloomError
from timeloom.model.convert import Report, convert
from timeloom.model.parts import Model, fit, on_meta
from timeloom.models.unet import MECHANISM
from timeloom.weight_files import Stored, usable


def merge(
    model: Model,
    source: Path,
    adapter: Adapter,
    destination: Path,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Report:
    """Write `model`, read from `source`, as the folder `destination`, with `scale` times the adapter in its U-Net.

    Raises:
        TimeloomError: the adapter does not fit the model, or what `convert` raises.
    """
    adapter.require_use(model.unet.config.get("temporal", "none"), _predicts(model))
    config = on_meta(model.unet, **adapter.use.mechanism).config
    tensors = model.unet.tensors
    weights = {key: stored.tensor for key, stored in tensors.items()}
    for name, weight in adapter.changed(weights, config, scale):
        tensors[name] = Stored(tensors[name].file, tensors[name].key, weight)
    return convert(model, source, destination, adapter.use.mechanism, adapter.use.defaults, dtype, overwrite)


def difference(base: Model, tuned: Model, dtype: torch.dtype) -> tuple[Use, dict[str, Tensor]]:
    """What makes the U-Net of `tuned` from that of `base`, for `write_adapter`; weights that are equal are left out.

    Raises:
        TimeloomError: the U-Nets are not of one family, predict different things, or are equal; a mechanism with
            tensors of its own; a difference beyond the range of `dtype`.
    """
    networks = [on_meta(model.unet) for model in (base, tuned)]
    for model, network in zip((base, tuned), networks, strict=True):
        fit(model.unet, network)
        if any(key.startswith(MECHANISM) for key in model.unet.tensors):
            raise TimeloomError(f"{model.unet.source} has a temporal mechanism with tensors of its own: no adapter.")
    if _predicts(base) != _predicts(tuned):
        raise TimeloomError(f"The U-Net of {base.unet.source} predicts something else than {tuned.unet.source}.")
    changes = {}
    for key, stored in sorted(tuned.unet.tensors.items()):
        before = base.unet.tensors.get(key)
        if before is None or before.tensor.shape != stored.tensor.shape:
            raise TimeloomError(f"{base.unet.source} has no weight {key!r} of the shape that {stored.file} has.")
        change = usable(stored, torch.float32) - usable(before, torch.float32)
        if change.any():
            changes[_name_of_change(key)] = usable(Stored(stored.file, key, change), dtype)
    if not changes:
        raise TimeloomError(f"The U-Nets of {base.unet.source} and {tuned.unet.source} are equal: nothing to write.")
    return _use(tuned, networks[1].config), changes


def parts_beside(base: Model, tuned: Model) -> list[str]:
    """The networks beside the U-Net that differ, and that an adapter does not hold."""
    pairs = ((part.name, part.tensors, getattr(tuned, part.name).tensors) for part in (base.vae, base.text_encoder))
    return [
        name
        for name, one, other in pairs
        if one.keys() != other.keys() or any(not torch.equal(one[key].tensor, other[key].tensor) for key in one)
    ]


def _name_of_change(key: str) -> str:
    """What an adapter calls the change of a weight or a bias: conv_in.weight is conv_in.diff there."""
    layer, _, kind = key.rpartition(".")
    return f"{layer}.{'diff' if kind == 'weight' else 'diff_b'}"


def _predicts(model: Model) -> str:
    return str(model.scheduler_config.get("prediction_type", "epsilon"))


def _use(model: Model, config: Any) -> Use:
    pixels = 2 ** (len(model.vae.config["block_out_channels"]) - 1)
    size = config.sample_size or 64
    height, width = (size, size) if isinstance(size, int) else size
    defaults = {"num_frames": 16, "fps": 8.0, "height": height * pixels, "width": width * pixels, **model.defaults}
    return Use(
        temporal=config.temporal,
        shift_fraction=config.shift_fraction,
        shift_placement=config.shift_placement,
        **{name: defaults[name] for name in ("num_frames", "fps", "height", "width")},
        prediction_type=_predicts(model),
        family=family(config),
    )
