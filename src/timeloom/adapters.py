"""Adapters: what training changed in a U-Net, in one file, for every other U-Net of the same family.

Latent-Shift adds no parameter, so what its training learns is a change of an image network's weights and nothing else.
An adapter holds that change, and names the temporal mechanism that it goes with. It is a safetensors file in diffusers'
LoRA format: `unet.LAYER.lora_A.weight` (R, in, ...) and `lora_B.weight` (out, R, ...), rank R, stand for the change
alpha / R · B·A (LoRA, arXiv 2106.09685, Sec. 4.1), their config for diffusers in the file's metadata. A change may also
stand there whole, as `unet.LAYER.diff`, of a bias `unet.LAYER.diff_b`. What Timeloom needs beside is in the metadata
too, as JSON under the name `timeloom`.

Using an adapter means adding its changes to the weights; that needs no other package, and costs nothing afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.model_files import PICKLES, fetched, first_line
from timeloom.schema import Schema, check

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers' `load_lora_weights` looks for in a folder."""

PREFIX = "unet."
LORA_CONFIG = "lora_adapter_metadata"
"""Diffusers' name of a LoRA's config in the metadata."""
OWN = "timeloom"

SUFFIXES = {".lora_A.weight": ".weight", ".lora_B.weight": ".weight", ".diff": ".weight", ".diff_b": ".bias"}
"""How names of tensors end in an adapter, and how the name of what they change does."""

FAMILY = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim")
"""Options of a U-Net that tell its family to a reader."""


class Use(Schema):
    """What an adapter goes with: the temporal mechanism to switch on, and the clips that it was trained on."""

    temporal: Literal["none", "shift"]
    """Mechanisms with tensors of their own are no change of an image network."""
    shift_fraction: float = Field(ge=0.0, le=0.5)
    shift_placement: Literal["residual_start", "residual_end"]
    num_frames: int = Field(ge=1)
    fps: float = Field(gt=0)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    prediction_type: str
    """What the U-Net predicts: epsilon (noise) or v_prediction."""
    family: dict[str, Any]
    """Config of the U-Net that it was trained on, as far as it tells the family."""

    @property
    def mechanism(self) -> dict[str, Any]:
        """Options of `VideoUNet`."""
        return self.model_dump(include={"temporal", "shift_fraction", "shift_placement"})

    @property
    def defaults(self) -> dict[str, Any]:
        """Of generation, as `model_index.json` has them."""
        return self.model_dump(include={"num_frames", "fps", "height", "width"})


def family(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a U-Net's config tells its family, in JSON's types."""
    return json.loads(json.dumps({option: config.get(option) for option in FAMILY}))


@dataclass(frozen=True)
class Adapter:
    """An adapter whose tensors are in order; whether they fit a U-Net shows when they meet it."""

    file: Path
    use: Use
    tensors: dict[str, Tensor]
    """By their names in the file, without its prefix."""
    lora_scale: float = 1.0
    """alpha / R."""

    def require_use(self, temporal: str, prediction_type: str) -> None:
        """Raise TimeloomError for a model with another mechanism of its own, or one that predicts something else."""
        if temporal not in ("none", self.use.temporal):
            raise TimeloomError(
                f"{self.file} goes with the temporal mechanism {self.use.temporal!r}, and the model has {temporal!r}. "
                "Give the image model, or one with the same mechanism."
            )
        if prediction_type != self.use.prediction_type:
            raise TimeloomError(
                f"{self.file} was trained on a U-Net that predicts {self.use.prediction_type!r}, and the model's "
                f"predicts {prediction_type!r}: it is of another family."
            )

    def changed(
        self, weights: Mapping[str, Tensor], config: Mapping[str, Any], scale: float = 1.0
    ) -> Iterator[tuple[str, Tensor]]:
        """Each weight that the adapter changes, by its name: weight + scale · change, added in fp32, in its own dtype.

        Args:
            weights: of a U-Net, by their names.
            config: the U-Net's, for the message where it is of another family.
            scale: 1 for the whole change, 0 for none.

        Raises:
            TimeloomError: the first tensor, by name, that has no place in the U-Net or another shape.
        """
        for name, keys in sorted(self.by_weight().items()):
            parts = [self.tensors[key] for key in keys]
            shape = (parts[-1].shape[0], *parts[0].shape[1:])
            if name not in weights:
                raise self._misfit(keys[0], "has no place in this U-Net", config)
            weight = weights[name]
            if shape != weight.shape:
                problem = f"changes a weight of shape {tuple(shape)}, which here has {tuple(weight.shape)}"
                raise self._misfit(keys[0], problem, config)
            change, *up = (part.to(weight.device, torch.float32) for part in parts)
            if up:
                change = self.lora_scale * (up[0].flatten(1) @ change.flatten(1)).reshape(shape)
            yield name, (weight.float() + scale * change).to(weight.dtype)

    def by_weight(self) -> dict[str, list[str]]:
        """The names of the tensors that change each weight: A and B, or the difference."""
        keys: dict[str, list[str]] = {}
        for key in sorted(self.tensors):
            keys.setdefault(_changes(key), []).append(key)
        return keys

    def _misfit(self, key: str, problem: str, config: Mapping[str, Any]) -> TimeloomError:
        here = family(config)
        others = [
            f"{option} is {value} there and {here.get(option)} here"
            for option, value in self.use.family.items()
            if value != here.get(option)
        ]
        why = f": it is of another family, {others[0]}." if others else "."
        return TimeloomError(f"{self.file}: the tensor {PREFIX + key!r} {problem}{why}")


def _changes(key: str) -> str:
    """The name of the weight that a tensor of an adapter changes; "" where it is no such tensor."""
    for suffix, ending in SUFFIXES.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix) + ending
    return ""


def read_adapter(path: str | Path) -> Adapter:
    """Read an adapter: a safetensors file, or the folder that holds it under diffusers' name.

    Raises:
        TimeloomError: no such file, a pickle, a damaged file, one without Timeloom's metadata, or a tensor that is not
            finite, or of no use in an adapter.
    """
    file = find_adapter(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise TimeloomError(f"{file} is no safetensors file, damaged or cut short: {first_line(error)}") from error
    if OWN not in metadata:
        raise TimeloomError(
            f"{file} does not say which temporal mechanism it goes with (no {OWN!r} in its metadata): "
            "only adapters that Timeloom wrote are read."
        )
    if not tensors:
        raise TimeloomError(f"{file} holds no tensor.")
    for key, tensor in sorted(tensors.items()):
        _require_sound(file, key, tensor)
    use = check(Use, _json(file, metadata[OWN]), file)
    adapter = Adapter(file, use, {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()})
    lora = [keys for keys in adapter.by_weight().values() if any(".lora_" in key for key in keys)]
    if not lora:
        return adapter
    rank, alpha = _rank_and_alpha(file, _json(file, metadata.get(LORA_CONFIG, "{}")))
    for keys in lora:
        first, *others = (adapter.tensors[key].shape for key in keys)
        matched = [key.rpartition(".lora_")[2] for key in keys] == ["A.weight", "B.weight"]
        if not (matched and first[0] == rank and others[0][1:] == (rank, *(1 for _ in first[2:]))):
            raise TimeloomError(f"{file}: {PREFIX + keys[0]!r} is not one of a pair lora_A and lora_B of rank {rank}.")
    return replace(adapter, lora_scale=alpha / rank)


def find_adapter(path: str | Path) -> Path:
    """The file of an adapter, given itself, its folder, or the Hub id of one that is in the local cache.

    Raises:
        TimeloomError: there is none, or only a pickle.
    """
    repository, path = str(path), Path(path).expanduser()
    if not path.exists() and repository.count("/") == 1 and not path.suffix:
        path = fetched(repository) or path
    file = path / ADAPTER_FILE if path.is_dir() else path
    pickles = sorted(other.name for other in path.glob("*") if other.suffix in PICKLES) if path.is_dir() else []
    if file.suffix in PICKLES or (pickles and not file.is_file()):
        name = file if file.suffix in PICKLES else path / pickles[0]
        raise TimeloomError(f"{name} is a pickle, which can run code when it is loaded; an adapter is a .safetensors.")
    if not file.is_file():
        raise TimeloomError(
            f"There is no adapter {file}: give a .safetensors file, a folder with {ADAPTER_FILE}, "
            "or a Hub id after hf download."
        )
    return file


def _require_sound(file: Path, key: str, tensor: Tensor) -> None:
    if not key.startswith(PREFIX) or not _changes(key):
        raise TimeloomError(f"{file}: the tensor {key!r} is no change of a U-Net's weight.")
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32) or not tensor.ndim:
        raise TimeloomError(f"{file}: the tensor {key!r} is stored as {tensor.dtype} of shape {tuple(tensor.shape)}.")
    if not torch.isfinite(tensor).all():
        raise TimeloomError(f"{file}: the tensor {key!r} has values that are not finite.")


def _json(file: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise TimeloomError(f"{file}: its metadata cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TimeloomError(f"{file}: a JSON object is expected in its metadata.")
    return content


def _rank_and_alpha(file: Path, config: dict[str, Any]) -> tuple[int, float]:
    """Of peft's config of a plain LoRA, the same rank in every layer."""
    for option in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias"):
        if config.get(PREFIX + option):
            raise TimeloomError(f"{file} is a LoRA with {option}, which is not supported; plain ones are.")
    rank, alpha = config.get(f"{PREFIX}r"), config.get(f"{PREFIX}lora_alpha")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)):
        raise TimeloomError(f"{file} does not tell the rank and alpha of its LoRA ({LORA_CONFIG!r} in its metadata).")
    return rank, alpha


def write_adapter(file: Path, use: Use, tensors: Mapping[str, Tensor], lora_config: Mapping[str, Any] | None) -> None:
    """Write an adapter; whole or not at all, and the same bytes for the same adapter.

    Args:
        file: .safetensors.
        use: what it goes with.
        tensors: `LAYER.lora_A.weight`, `LAYER.lora_B.weight`, `LAYER.diff`, `LAYER.diff_b`.
        lora_config: peft's, where there is a LoRA.
    """
    metadata = {"format": "pt", OWN: use.model_dump_json()}
    if lora_config is not None:
        config = {PREFIX + key: sorted(v) if isinstance(v, set) else v for key, v in lora_config.items()}
        metadata[LORA_CONFIG] = json.dumps(config, indent=2, sort_keys=True)
    stored = {PREFIX + key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    replace_file(file, _with_sorted_metadata(save(stored, metadata)))


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file whose metadata are in order: its writer leaves them in any, another one each time."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(text) <= size, "the header only changes its order"
    return content[:8] + text.ljust(size) + content[8 + size :]


def apply_adapter(unet: Any, adapter: Adapter, scale: float = 1.0) -> None:
    """Add an adapter's changes to the weights of a network; the mechanism is the caller's to switch on.

    Raises:
        TimeloomError: the adapter does not fit; see `Adapter.changed`.
    """
    weights = unet.state_dict()
    for name, weight in adapter.changed(weights, unet.config, scale):
        weights[name].copy_(weight)
