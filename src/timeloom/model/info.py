"""What a model will cost before it is run: parameters, operations and memory, from its configs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.model.parts import Model, on_meta
from timeloom.model_files import quiet_libraries
from timeloom.models.cost import Cost, measure
from timeloom.models.unet import MECHANISM
from timeloom.weight_files import DTYPES

DECODED_AT_ONCE = 16
"""Frames, as `timeloom generate` decodes them."""

TRAINING_COPIES = 5
"""In fp32, of each trained parameter: weight, gradient, Adam's two moments, moving average."""


@dataclass(frozen=True)
class Use:
    """What is asked of a model. None takes the model's own default."""

    temporal: str | None = None
    swap: Mapping[str, Any] = field(default_factory=dict)
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    precision: str = "bf16"


def count_parameters(model: Model, temporal: str, swap: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Parameters by part with a temporal mechanism, what the mechanism adds standing apart; and in all."""
    unet = _unet(model, temporal, swap or {})
    added = sum(parameter.numel() for key, parameter in unet.named_parameters() if key.startswith(MECHANISM))
    parameters = {
        "unet": _parameters(unet) - added,
        "temporal_mechanism": added,
        "vae": _parameters(on_meta(model.vae)),
        "text_encoder": _parameters(on_meta(model.text_encoder)),
    }
    return {**parameters, "total": sum(parameters.values())}


def _unet(model: Model, temporal: str, swap: Mapping[str, Any]) -> Any:
    changes = {"swap": {**(model.unet.config.get("swap") or {}), **swap}} if temporal == "swap" else {}
    return on_meta(model.unet, temporal=temporal, **changes)


def _parts_of_mechanism(unet: Any) -> dict[str, int]:
    """Parameters of the temporal mechanism, by its modules."""
    return {name: _parameters(module) for name, module in unet.temporal_mechanism.named_children()}


@quiet_libraries()
def describe(model: Model, name: str, use: Use) -> dict[str, Any]:
    """Sizes and costs of a model, ready for JSON. FLOPs are operations, memory is bytes.

    Raises:
        TimeloomError: a config that is of no Stable Diffusion model, or a size that the autoencoder cannot make.
    """
    temporal = use.temporal or str(model.unet.config.get("temporal", "none"))
    dtype = DTYPES[use.precision]
    if use.swap and temporal != "swap":
        raise TimeloomError(f"--swap has options of the mechanism swap; {name} has {temporal}. Say --temporal swap.")
    unet = _unet(model, temporal, use.swap).to(dtype)
    image_unet = on_meta(model.unet, temporal="none").to(dtype)
    vae, text_encoder = on_meta(model.vae).to(dtype), on_meta(model.text_encoder).to(dtype)
    clip = _clip(model, use)
    steps, guided = clip["num_inference_steps"], clip["guidance_scale"] > 1
    predictions = 2 if guided else 1

    step = _prediction(unet, clip, predictions)
    image_step = step if temporal == "none" else _prediction(image_unet, clip, predictions)
    decoding, decoded = _decoding(vae, clip)
    text = _text(text_encoder, predictions)
    training, checkpointed = (_training(unet, clip, checkpointing) for checkpointing in (False, True))

    parameters = count_parameters(model, temporal, use.swap)
    total = parameters["total"]
    trained, frozen = _parameters(unet), total - _parameters(unet)
    weights = total * dtype.itemsize
    activations = max(step.peak_bytes, decoding.peak_bytes)
    state = 4 * (TRAINING_COPIES * trained + frozen)
    return {
        "model": name,
        "temporal": temporal,
        "networks": {part.name: part.network.__name__ for part in model.parts},
        "clip": clip,
        "precision": use.precision,
        "parameters": parameters,
        "temporal_mechanism": _parts_of_mechanism(unet),
        "flops": {
            "image_unet_per_step": image_step.flops,
            "temporal_mechanism_per_step": step.flops - image_step.flops,
            "per_step": step.flops,
            "text": text.flops,
            "denoising": steps * step.flops,
            "decoding": decoded,
            "per_clip": text.flops + steps * step.flops + decoded,
            "training_per_clip": training.flops,
        },
        "memory": {
            "inference_weights": weights,
            "inference_activations": activations,
            "inference": weights + activations,
            "training_state": state,
            "training_activations_per_clip": training.peak_bytes,
            "training_activations_per_clip_checkpointed": checkpointed.peak_bytes,
            "training_one_clip": state + training.peak_bytes,
            "training_one_clip_checkpointed": state + checkpointed.peak_bytes,
        },
    }


def _clip(model: Model, use: Use) -> dict[str, Any]:
    """Frames, pixels, steps and guidance: as asked, else the model's defaults, else those of TextToVideoPipeline."""
    factor = 2 ** (len(model.vae.config["block_out_channels"]) - 1)
    size = model.unet.config.get("sample_size") or 64
    rows, columns = (size, size) if isinstance(size, int) else size
    asked = {
        "num_frames": use.num_frames,
        "height": use.height,
        "width": use.width,
        "num_inference_steps": use.steps,
        "guidance_scale": use.guidance,
    }
    usual = {
        "num_frames": 16,
        "height": rows * factor,
        "width": columns * factor,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
    }
    clip = {}
    for name, value in asked.items():
        default = model.defaults.get(name)
        clip[name] = value if value is not None else usual[name] if default is None else default
    for name in ("height", "width"):
        if clip[name] < factor or clip[name] % factor:
            raise TimeloomError(f"The {name} must be a multiple of {factor} pixels, not {clip[name]}.")
    return {**clip, "pixels_per_latent": factor}


def _latents(unet: Any, clip: dict[str, Any], clips: int) -> torch.Tensor:
    rows, columns = (clip[side] // clip["pixels_per_latent"] for side in ("height", "width"))
    shape = (clips, clip["num_frames"], unet.config.in_channels, rows, columns)
    return torch.empty(shape, device="meta", dtype=unet.dtype)


def _text_features(unet: Any, clips: int) -> torch.Tensor:
    return torch.empty(clips, 77, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)


def _prediction(unet: Any, clip: dict[str, Any], predictions: int) -> Cost:
    """One denoising step; with guidance, the prediction without the text runs beside the one with it."""
    latents, text = _latents(unet, clip, predictions), _text_features(unet, predictions)
    return measure(unet, lambda: unet(latents, 500, text).sample)


def _training(unet: Any, clip: dict[str, Any], checkpointing: bool) -> Cost:
    """Forward and backward pass over one clip; `checkpointing` recomputes layers in place of keeping them."""
    unet.train()
    unet.enable_gradient_checkpointing() if checkpointing else unet.disable_gradient_checkpointing()
    latents, text = _latents(unet, clip, 1), _text_features(unet, 1)
    return measure(unet, lambda: unet(latents, 500, text).sample, backward=True)


def _decoding(vae: Any, clip: dict[str, Any]) -> tuple[Cost, int]:
    """The cost of decoding as many frames as are decoded at once, and the FLOPs of the whole clip."""
    frames = min(clip["num_frames"], DECODED_AT_ONCE)
    rows, columns = (clip[side] // clip["pixels_per_latent"] for side in ("height", "width"))
    latents = torch.empty(frames, vae.config.latent_channels, rows, columns, device="meta", dtype=vae.dtype)
    cost = measure(vae, lambda: vae.decode(latents).sample)
    return cost, cost.flops // frames * clip["num_frames"]


def _text(text_encoder: Any, texts: int) -> Cost:
    length = text_encoder.config.max_position_embeddings
    tokens = torch.zeros(texts, length, device="meta", dtype=torch.long)
    return measure(text_encoder, lambda: text_encoder(tokens).last_hidden_state)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
