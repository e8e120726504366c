"""Tiny networks of the Stable Diffusion family, with random weights."""

import pytest

TEXT_TOKENS, TEXT_WIDTH = 5, 12

THREE_LEVELS = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "cross_attention_dim": TEXT_WIDTH,
}
CONFIGS = {
    "sd1": {**THREE_LEVELS, "attention_head_dim": 4},
    "sd2": {
        **THREE_LEVELS,
        "attention_head_dim": [2, 4, 4],
        "use_linear_projection": True,
        "upcast_attention": True,
        "transformer_layers_per_block": 2,
    },
    "ldm": {
        **THREE_LEVELS,
        "layers_per_block": 2,
        "attention_head_dim": 2,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "center_input_sample": True,
    },
    "rare": {
        **THREE_LEVELS,
        "attention_head_dim": 4,
        "in_channels": 9,
        "resnet_time_scale_shift": "scale_shift",
        "resnet_skip_time_act": False,
        "cross_attention_norm": "layer_norm",
        "mid_block_scale_factor": 1.4,
        "downsample_padding": 0,
    },
}
ONE_LEVEL = {
    **THREE_LEVELS,
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "attention_head_dim": 4,
}


def build(config, temporal="none", like=None, seed=0, **options):
    """A VideoUNet; with the weights of `like` where that is given."""
    import torch

    from timeloom.models.unet import VideoUNet

    torch.manual_seed(seed)
    unet = VideoUNet(**config, temporal=temporal, **options).eval()
    if like is not None:
        unet.load_state_dict(like.state_dict())
    return unet


def clip_inputs(clips, frames, height=8, width=8, channels=4, seed=1, dtype=None):
    """Noisy latents (B, F, C, H, W), one timestep a clip, one text a clip."""
    import torch

    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(clips, frames, channels, height, width, generator=random, dtype=dtype)
    text = torch.randn(clips, TEXT_TOKENS, TEXT_WIDTH, generator=random, dtype=dtype)
    return latents, torch.arange(clips) * 300 + 17, text


@pytest.fixture(params=sorted(CONFIGS))
def config(request):
    """One of the family's configs."""
    return CONFIGS[request.param]
