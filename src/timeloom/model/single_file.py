"""Single-file checkpoints of Stable Diffusion 1.x and 2.x, in the layout of the original code.

Such a file has no configs, so they are read off the shapes of its tensors. What shapes cannot tell, the number of heads
and the activation, goes by the family: 8 heads and CLIP in 1.x; heads 64 wide and OpenCLIP in 2.x.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel

from timeloom.errors import TimeloomError
from timeloom.model.original_layout import Origin, clip_origin, open_clip_origin, unet_origin, vae_origin
from timeloom.model.parts import Model, Part, on_meta
from timeloom.models.families import scheduler_config
from timeloom.models.unet import VideoUNet
from timeloom.weight_files import Stored, read_weights

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."

OTHER_FAMILIES = (
    (r"lora_|\.lora|\.hada_|\.lokr_|\.dora_scale", "a LoRA: a change to a model, and not a model"),
    (r"conditioner\.embedders\.|model\.diffusion_model\.label_emb\.", "an SDXL checkpoint"),
    (
        r"(model\.diffusion_model\.)?(joint_blocks|double_blocks|double_stream|x_embedder|pos_embed|patch_embed|blocks\.0)"
        r"|transformer_blocks\.0|adaln",
        "a diffusion transformer (DiT, SD3, Flux, ...)",
    ),
    (r"(module\.)?(down_blocks|up_blocks)\.\S*motion_modules", "an AnimateDiff motion module"),
    (r"control_model\.", "a ControlNet"),
    (r"(encoder|decoder)\.(conv_in|mid)", "an autoencoder alone"),
    (r"(down_blocks|mid_block|up_blocks)\.", "one U-Net of a diffusers folder; give the folder with model_index.json"),
    (
        r"cond_stage_model\.transformer\.(token_emb|attn_layers)\.",
        "LDM text2img-large in its original form; convert its diffusers folder (CompVis/ldm-text2im-large-256)",
    ),
)
"""Names of tensors that give another family away, tried in this order."""

LEFT_OUT = (
    (r"model_ema\.", "moving average of the U-Net, in a second copy"),
    (
        r"(betas|\w*alphas_cumprod\w*|posterior_\w+|lvlb_weights|logvar|scale_factor)$",
        "noise schedule, kept as a config",
    ),
    (r"cond_stage_model\.\S*position_ids", "a constant that the network makes itself"),
    (r"cond_stage_model\.\S*attn_mask", "a constant that the network makes itself"),
    (r"cond_stage_model\.(model\.)?(logit_scale|text_projection(\.weight)?)", "what compares text with images"),
    (r"first_stage_model\.loss\.", "what only the training of the autoencoder needs"),
    (r"first_stage_model\.model_ema\.", "moving average of the autoencoder, in a second copy"),
)
"""Tensors beside the three networks, and why they are not taken."""


def read_single_file(path: Path, prediction_type: str | None) -> Model:
    """A single-file checkpoint as parts, without a tokenizer: such files have none.

    Args:
        path: the file.
        prediction_type: "epsilon" or "v_prediction". Needed for 2.x, where two kinds of model have the same tensors.

    Raises:
        TimeloomError: another family, or a damaged file.
    """
    tensors, beside = read_weights(path)
    _refuse_other_families(path, tensors)
    second = any(key.startswith(OPEN_CLIP) for key in tensors)
    schedule = _noise_schedule(tensors, prediction_type or "epsilon")
    model_left_out = {"training state beside the weights": beside} if beside else {}
    for key in [key for key in tensors if not key.startswith((UNET, VAE, "cond_stage_model."))]:
        reason = _why_left_out(key)
        if reason is not None:
            model_left_out.setdefault(reason, []).append(key)
            del tensors[key]
    size = 96 if second and prediction_type == "v_prediction" else 64
    find = partial(_find, path, tensors)
    unet = _part("unet", VideoUNet, _unet_config(find, tensors, size), path, tensors, UNET, unet_origin)
    vae = _part("vae", AutoencoderKL, _vae_config(find, tensors, 8 * size), path, tensors, VAE, vae_origin)
    if second:
        config, prefix, origin = _open_clip_config(find, tensors), OPEN_CLIP, open_clip_origin
        text_encoder = _part("text_encoder", CLIPTextModel, config, path, tensors, prefix, origin)
        _leave_last_layer_out(text_encoder)
    else:
        config, prefix, origin = _clip_config(find, tensors), CLIP, clip_origin
        text_encoder = _part("text_encoder", CLIPTextModel, config, path, tensors, prefix, origin)
    if tensors:
        raise TimeloomError(f"{path} holds what no part of the model has a place for, the tensor {min(tensors)!r}.")
    return Model(
        unet,
        vae,
        text_encoder,
        scheduler="DDIMScheduler",
        scheduler_config=schedule,
        tokenizer=None,
        padding="!" if second else None,  # open_clip fills up with zeros, and that is the word's number
        left_out=model_left_out,
    )


def needs_prediction_type(path: Path) -> bool:
    """Whether a checkpoint is of 2.x, where the tensors do not tell what the network predicts."""
    return any(key.startswith(OPEN_CLIP) for key in read_weights(path)[0])


def _refuse_other_families(path: Path, tensors: dict[str, Stored]) -> None:
    for pattern, family in OTHER_FAMILIES:
        first = next(
            (key for key in tensors if re.match(pattern, key) or ("lora" in pattern and re.search(pattern, key))), None
        )
        if first is not None:
            raise TimeloomError(
                f"{path} is {family}, as its tensor {first!r} shows. Checkpoints of Stable Diffusion 1.x and 2.x can "
                "be converted."
            )
    if not any(key.startswith(UNET) for key in tensors):
        first = repr(min(tensors)) if tensors else "nothing"
        raise TimeloomError(
            f"{path} is no checkpoint of Stable Diffusion 1.x or 2.x: it holds {first}, and no {UNET}*."
        )


def _noise_schedule(tensors: dict[str, Stored], prediction_type: str) -> dict[str, Any]:
    """The scheduler's config: Stable Diffusion's, or with the file's own betas where it was trained with others."""
    config = scheduler_config(prediction_type)
    if "alphas_cumprod" not in tensors:
        return config
    kept = tensors["alphas_cumprod"].tensor.double()
    if len(kept) == 1000 and torch.allclose(
        kept, DDIMScheduler(**config).alphas_cumprod.double(), atol=1e-3
    ):  # room for fp16
        return config
    betas = 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    return {**config, "num_train_timesteps": len(betas), "trained_betas": betas.tolist()}


def _why_left_out(key: str) -> str | None:
    return next((reason for pattern, reason in LEFT_OUT if re.match(pattern, key)), None)


def _part(
    name: str,
    network: type[nn.Module],
    config: dict[str, Any],
    path: Path,
    tensors: dict[str, Stored],
    prefix: str,
    origin: Callable[[str, dict[str, Any]], Origin],
) -> Part:
    """Move the tensors of one network from `tensors` into a part, under the network's own names."""
    if prefix == CLIP and not any(key.startswith(f"{CLIP}text_model.") for key in tensors):
        prefix_of, drop = CLIP, "text_model."  # files that were merged by tools keep the shorter name
    else:
        prefix_of, drop = prefix, ""

    def file_key(key: str) -> str:
        return prefix_of + origin(key, config).key.removeprefix(drop)

    part = Part(name, network, config, path, file_key=file_key)
    asked = set()
    for key in on_meta(part).state_dict():
        stored = tensors.get(file_key(key))
        if stored is not None:
            asked.add(stored.key)
            part.tensors[key] = Stored(path, stored.key, _third(path, stored, origin(key, config).third))
    family = "cond_stage_model." if name == "text_encoder" else prefix
    for key in [key for key in tensors if key.startswith(family)]:
        stored = tensors.pop(key)
        if key in asked:
            continue
        if (reason := _why_left_out(key)) is not None:
            part.left_out.setdefault(reason, []).append(key)
        else:
            part.tensors[key] = stored  # no place for it: `fit` will say so
    return part


def _third(path: Path, stored: Stored, third: int | None) -> Tensor:
    if third is None:
        return stored.tensor
    if stored.tensor.shape[0] % 3:
        raise TimeloomError(
            f"{path}: the tensor {stored.key!r} of shape {tuple(stored.tensor.shape)} has no three equal parts."
        )
    return stored.tensor.chunk(3)[third].clone()


def _leave_last_layer_out(part: Part) -> None:
    """2.x reads its text before the last layer, so diffusers' folders do not have that layer."""
    last = f"{OPEN_CLIP}transformer.resblocks.{part.config['num_hidden_layers']}."
    keys = [key for key in part.tensors if key.startswith(last)]
    part.left_out["last layer, which Stable Diffusion 2.x does not use"] = keys
    for key in keys:
        del part.tensors[key]


def _find(path: Path, tensors: dict[str, Stored], key: str) -> tuple[int, ...]:
    """The shape of a tensor that the config is read off."""
    if key not in tensors:
        raise TimeloomError(f"{path} lacks the tensor {key!r}.")
    return tuple(tensors[key].tensor.shape)


Find = Callable[[str], tuple[int, ...]]


def _unet_config(find: Find, tensors: dict[str, Stored], size: int) -> dict[str, Any]:
    first, last = find(f"{UNET}input_blocks.0.0.weight"), find(f"{UNET}out.2.weight")
    channels, layers, with_text = [first[0]], [0], [False]
    text_width, linear = None, False
    blocks = _count(tensors, f"{UNET}input_blocks.")
    for block in range(1, blocks):
        name = f"{UNET}input_blocks.{block}"
        if _has(tensors, f"{name}.0.op."):
            channels.append(0)
            layers.append(0)
            with_text.append(False)
            continue
        channels[-1] = find(f"{name}.0.out_layers.3.weight")[0]
        layers[-1] += 1
        if _has(tensors, f"{name}.1."):
            with_text[-1] = True
            text_width = find(f"{name}.1.transformer_blocks.0.attn2.to_k.weight")[1]
            linear = len(find(f"{name}.1.proj_in.weight")) == 2
    if 0 in layers or len(set(layers)) != 1:
        raise TimeloomError(
            f"The U-Net has {layers} layers a level, and Stable Diffusion has as many in each: is the file whole?"
        )
    return {
        "sample_size": size,
        "in_channels": first[1],
        "out_channels": last[0],
        "block_out_channels": channels,
        "layers_per_block": layers[0],
        "cross_attention_dim": text_width or find(f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")[1],
        "use_linear_projection": linear,
        "attention_head_dim": [width // 64 for width in channels] if linear else 8,  # diffusers: the number of heads
        "down_block_types": ["CrossAttnDownBlock2D" if text else "DownBlock2D" for text in with_text],
        "up_block_types": ["CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(with_text)],
    }


def _vae_config(find: Find, tensors: dict[str, Stored], size: int) -> dict[str, Any]:
    levels = _count(tensors, f"{VAE}encoder.down.")
    return {
        "sample_size": size,
        "in_channels": find(f"{VAE}encoder.conv_in.weight")[1],
        "out_channels": find(f"{VAE}decoder.conv_out.weight")[0],
        "latent_channels": find(f"{VAE}post_quant_conv.weight")[0],
        "block_out_channels": [find(f"{VAE}encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)],
        "layers_per_block": _count(tensors, f"{VAE}encoder.down.0.block."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": 0.18215,
    }


def _clip_config(find: Find, tensors: dict[str, Stored]) -> dict[str, Any]:
    name = CLIP + ("text_model." if _has(tensors, f"{CLIP}text_model.") else "")
    vocabulary, width = find(f"{name}embeddings.token_embedding.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": find(f"{name}embeddings.position_embedding.weight")[0],
        "intermediate_size": find(f"{name}encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": _count(tensors, f"{name}encoder.layers."),
        "num_attention_heads": max(1, width // 64),
        "hidden_act": "quick_gelu",
    }


def _open_clip_config(find: Find, tensors: dict[str, Stored]) -> dict[str, Any]:
    vocabulary, width = find(f"{OPEN_CLIP}token_embedding.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": find(f"{OPEN_CLIP}positional_embedding")[0],
        "intermediate_size": find(f"{OPEN_CLIP}transformer.resblocks.0.mlp.c_fc.weight")[0],
        "num_hidden_layers": _count(tensors, f"{OPEN_CLIP}transformer.resblocks.") - 1,
        "num_attention_heads": max(1, width // 64),
        "hidden_act": "gelu",
    }


def _has(tensors: dict[str, Stored], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in tensors)


def _count(tensors: dict[str, Stored], prefix: str) -> int:
    """How many numbered modules follow a prefix: the highest number and one."""
    numbers = (re.match(r"\d+", key[len(prefix) :]) for key in tensors if key.startswith(prefix))
    return max((int(number[0]) for number in numbers if number), default=-1) + 1
