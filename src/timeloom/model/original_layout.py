"""What the original code of Stable Diffusion calls the tensors that diffusers and transformers have other names for.

Each function takes a name of the network at hand and answers with the original one, so that every tensor of the
network is asked for exactly once, and whatever nobody asked for is known. The names are those of
CompVis/latent-diffusion (openaimodel.py, model.py), and for text transformers' CLIP (1.x) and open_clip (2.x).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where a tensor of the network comes from."""

    key: str
    """Its name, or the name of what it is a third of."""
    third: int | None = None
    """0, 1 or 2: queries, keys or values, which open_clip keeps in one tensor along the first axis."""


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_origin(key: str, config: dict[str, Any]) -> Origin:
    """Of a U-Net's tensor. The original counts its blocks through: input_blocks.0 is the first convolution, then each
    level has its layers and, but for the last, a block that changes the size."""
    layers = config["layers_per_block"]
    name, _, kind = key.rpartition(".")
    if name in UNET_ENDS:
        return Origin(f"{UNET_ENDS[name]}.{kind}")
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key):
        block = 2 * int(match[2]) + (match[1] == "attentions")
        return Origin(f"middle_block.{block}.{_layer(match[1], match[3])}")
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key)
    if match is None:
        return Origin(key)
    side, level, module, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    place = 1 if module == "attentions" else 0
    if side == "down":
        block = 1 + level * (layers + 1) + (layers if module == "downsamplers" else index)
        rest = rest.replace("conv.", "op.", 1) if module == "downsamplers" else _layer(module, rest)
        return Origin(f"input_blocks.{block}.{place}.{rest}")
    block = level * (layers + 1) + (layers if module == "upsamplers" else index)
    if module == "upsamplers":  # stands behind the level's last layer, and its transformer if it has one
        place = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        return Origin(f"output_blocks.{block}.{place}.{rest}")
    return Origin(f"output_blocks.{block}.{place}.{_layer(module, rest)}")


def _layer(module: str, rest: str) -> str:
    """Names within a ResNet block; those within a transformer are the same in both."""
    if module != "resnets":
        return rest
    name, _, kind = rest.rpartition(".")
    return f"{RESNET[name]}.{kind}"


VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_origin(key: str, config: dict[str, Any]) -> Origin:
    """Of an autoencoder's tensor. The original decoder counts levels from the finest on, diffusers' from the last."""
    levels = len(config["block_out_channels"])
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.resnets\.(\d+)\.(.+)", key):
        return Origin(f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(\w+)", key):
        return Origin(f"{match[1]}.mid.attn_1.{VAE_ATTENTION[match[2]]}.{match[3]}")
    if match := re.fullmatch(r"encoder\.down_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key):
        return Origin(f"encoder.down.{match[1]}.{_vae_layer(match[2], match[3], match[4])}")
    if match := re.fullmatch(r"decoder\.up_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key):
        return Origin(f"decoder.up.{levels - 1 - int(match[1])}.{_vae_layer(match[2], match[3], match[4])}")
    return Origin(key)


def _vae_layer(module: str, index: str, rest: str) -> str:
    return {"resnets": f"block.{index}", "downsamplers": "downsample", "upsamplers": "upsample"}[module] + "." + rest


OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def open_clip_origin(key: str, config: dict[str, Any]) -> Origin:
    """Of a tensor of Stable Diffusion 2.x's text encoder, within cond_stage_model.model."""
    if key in OPEN_CLIP_ENDS:
        return Origin(OPEN_CLIP_ENDS[key])
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    if match is None:
        return Origin(key)
    block = f"transformer.resblocks.{match[1]}"
    if third := re.fullmatch(r"self_attn\.([qkv])_proj", match[2]):
        return Origin(f"{block}.attn.in_proj_{match[3]}", "qkv".index(third[1]))
    return Origin(f"{block}.{OPEN_CLIP_LAYER[match[2]]}.{match[3]}")


def clip_origin(key: str, config: dict[str, Any]) -> Origin:
    """Of a tensor of Stable Diffusion 1.x's text encoder, within cond_stage_model.transformer."""
    return Origin(f"text_model.{key}")
