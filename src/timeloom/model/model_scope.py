"""ModelScope's text-to-video U-Net (diffusers' UNet3DConditionModel) as the temporal mechanism `swap` has it.

Its spatial modules are Stable Diffusion 2's, under the same names. The modules over time keep theirs within a module;
where each stands in the network is said otherwise. Joined by plain addition the two networks compute the same.
"""

from __future__ import annotations

import re
from typing import Any

from timeloom.models.unet import MECHANISM

TEMPORAL = re.compile(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(temp_convs|temp_attentions)\.(\d+)\.(.+)")
STAGES = {"down_blocks": "encoder", "mid_block": "middle", "up_blocks": "decoder"}
MODULES = {"temp_convs": "convolutions", "temp_attentions": "attentions"}
INPUT = "transformer_in.", f"{MECHANISM}attentions.input_0_0."
"""What the attention over time behind the first convolution is called, there and here."""

SAME = (
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"),
    *("downsample_padding", "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps"),
)
"""Options that the two networks have in common."""


def unet_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a `VideoUNet` with the same modules. Its `attention_head_dim` is the heads' number, not width."""
    width = config.get("attention_head_dim", 64)
    channels = config.get("block_out_channels", (320, 640, 1280, 1280))
    blocks = {
        "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    }
    return {
        **{name: config[name] for name in SAME if name in config},
        "cross_attention_dim": config.get("cross_attention_dim", 1024),
        **{name: [kind.replace("3D", "2D") for kind in config.get(name, usual)] for name, usual in blocks.items()},
        "attention_head_dim": [wide // width for wide in channels],
        "use_linear_projection": True,
        "temporal": "swap",
    }


def our_key(key: str) -> str:
    """What `VideoUNet` calls a tensor of the U-Net."""
    if key.startswith(INPUT[0]):
        return INPUT[1] + key.removeprefix(INPUT[0])
    if (found := TEMPORAL.fullmatch(key)) is None:
        return key
    blocks, level, module, index, rest = found.groups()
    return f"{MECHANISM}{MODULES[module]}.{STAGES[blocks]}_{level or 0}_{index}.{rest}"


def their_key(key: str) -> str:
    """The inverse of `our_key`."""
    if key.startswith(INPUT[1]):
        return INPUT[0] + key.removeprefix(INPUT[1])
    found = re.fullmatch(rf"{re.escape(MECHANISM)}(\w+)\.([a-z]+)_(\d+)_(\d+)\.(.+)", key)
    if found is None or found[1] not in MODULES.values():
        return key
    module, stage, level, index, rest = found.groups()
    blocks = next(name for name, ours in STAGES.items() if ours == stage)
    names = next(name for name, ours in MODULES.items() if ours == module)
    return f"{blocks}{'' if stage == 'middle' else f'.{level}'}.{names}.{index}.{rest}"
