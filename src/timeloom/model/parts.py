"""A model as parts: three networks with their configs and tensors, wherever they were read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.model_files import quiet_libraries
from timeloom.models.unet import MECHANISM, VideoUNet
from timeloom.weight_files import Stored


@dataclass
class Part:
    """One network of a model."""

    name: str
    """Its folder in a model folder: unet, vae or text_encoder."""
    network: type[nn.Module]
    config: dict[str, Any]
    source: Path
    """File or folder, for messages."""
    tensors: dict[str, Stored] = field(default_factory=dict)
    """By the network's own names, or by the file's where the network has no place for them."""
    file_key: Callable[[str], str] = str
    """What the source calls a tensor of the network."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Tensors that are not taken, by reason."""


@dataclass
class Model:
    """Everything that a model folder will hold."""

    unet: Part
    vae: Part
    text_encoder: Part
    scheduler: str
    """Name of the class in diffusers."""
    scheduler_config: dict[str, Any]
    tokenizer: Path | None
    """Folder; None where the model was read without one."""
    padding: str | None = None
    """Word that fills a text up, where it differs from the tokenizer's."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Of generation, as model_index.json has them."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names that belong to none of the parts, by reason."""

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The three networks."""
        return self.unet, self.vae, self.text_encoder


@dataclass(frozen=True)
class Fit:
    """How the tensors of a part meet its network."""

    taken: list[str]
    added: list[str]
    """Tensors of the temporal mechanism that the source does not have, and that training may begin with."""


def on_meta(part: Part, **changes: Any) -> Any:
    """The network of a part without memory for its tensors, its config changed by `changes`.

    Raises:
        TimeloomError: the config is not of this network.
    """
    config = {**part.config, **changes}
    network: Any = part.network
    try:
        with torch.device("meta"), quiet_libraries():
            if issubclass(network, ModelMixin):
                return network.from_config(config).eval()
            return network(network.config_class(**config)).eval()
    except TimeloomError as error:
        raise TimeloomError(f"{part.source}: the {part.name} does not fit. {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TimeloomError(f"{part.source} is no {network.__name__} that can be built: {reason}") from error


def fit(part: Part, network: Any) -> Fit:
    """Match a part's tensors with `network`, one by one, and put aside those of another temporal mechanism.

    Raises:
        TimeloomError: the first tensor that is missing, that the network has no place for, or of another shape.
    """
    wanted = network.state_dict()
    stored = {key for key in part.tensors if key.startswith(MECHANISM)} if part.network is VideoUNet else set()
    if stored and network.config.temporal != part.config.get("temporal", "none"):
        reason = f"belongs to the temporal mechanism {part.config.get('temporal')!r} of the source"
        part.left_out[reason] = sorted(part.tensors[key].key for key in stored)
        part.tensors = {key: tensor for key, tensor in part.tensors.items() if key not in stored}
    missing = wanted.keys() - part.tensors.keys()
    added = network.keys_that_begin(missing) if part.network is VideoUNet else set()
    _refuse_first(part, sorted(missing - added), "lacks the tensor", part.file_key)
    extra = sorted(part.tensors.keys() - wanted.keys())
    _refuse_first(
        part, extra, f"holds what the {part.name} has no place for, the tensor", lambda key: part.tensors[key].key
    )
    for key, stored_tensor in sorted(part.tensors.items()):
        shape = stored_tensor.tensor.shape
        if shape == (*wanted[key].shape, 1, 1):  # a 1x1 convolution where diffusers has a linear layer
            part.tensors[key] = Stored(stored_tensor.file, stored_tensor.key, stored_tensor.tensor[..., 0, 0])
        elif shape != wanted[key].shape:
            raise TimeloomError(
                f"{stored_tensor.file}: the tensor {stored_tensor.key!r} has the shape {tuple(shape)}, and the "
                f"{part.name} wants {tuple(wanted[key].shape)}."
            )
    return Fit(sorted(part.tensors), sorted(added))


def _refuse_first(part: Part, keys: list[str], problem: str, name: Callable[[str], str]) -> None:
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise TimeloomError(f"{part.source} {problem} {min(map(name, keys))!r}{more}.")


def require_match(model: Model) -> None:
    """Raise TimeloomError where the parts do not fit each other: widths of text, channels of latents."""
    text_width = on_meta(model.text_encoder).config.hidden_size
    pairs = (
        ("text features", text_width, model.unet.config.get("cross_attention_dim", 1280)),
        ("latent channels", model.vae.config.get("latent_channels", 4), model.unet.config.get("in_channels", 4)),
    )
    for what, given, wanted in pairs:
        if given != wanted:
            hint = " An inpainting or depth model is of another family." if what == "latent channels" else ""
            raise TimeloomError(
                f"{model.unet.source}: the U-Net takes {wanted} {what}, and the model's other part gives {given}.{hint}"
            )
