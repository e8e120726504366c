"""Configs of well-known image models, so that size and cost can be told without their weights. Data, no network."""

from __future__ import annotations

from typing import Any

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}
CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
OPEN_CLIP_H = {  # 24 layers, of which Stable Diffusion 2.x uses 23
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
HEADS_64_WIDE = {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}

# text_encoder: the name in TEXT_ENCODERS, and its config.
# diffusers' attention_head_dim is the number of heads here; sample_size counts latents, and pixels for autoencoders.
FAMILIES: dict[str, dict[str, Any]] = {
    "sd15": {
        "unet": {**UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "vae": {**VAE, "sample_size": 512},
        "text_encoder": ("CLIPTextModel", CLIP_L),
    },
    "sd21": {
        "unet": {**UNET, **HEADS_64_WIDE, "sample_size": 96, "cross_attention_dim": 1024},
        "vae": {**VAE, "sample_size": 768},
        "text_encoder": ("CLIPTextModel", OPEN_CLIP_H),
        "prediction_type": "v_prediction",
    },
    "modelscope": {  # text-to-video (arXiv 2308.06571), its modules over time left out: where VideoFactory starts
        "unet": {**UNET, **HEADS_64_WIDE, "sample_size": 32, "cross_attention_dim": 1024},
        "vae": {**VAE, "sample_size": 512},
        "text_encoder": ("CLIPTextModel", OPEN_CLIP_H),
    },
    "ldm-text2img-large": {  # CompVis/latent-diffusion, txt2img-1p4B-eval.yaml: where Latent-Shift starts
        "unet": {**UNET, "sample_size": 32, "cross_attention_dim": 1280, "attention_head_dim": 8},
        "vae": {**VAE, "sample_size": 256},
        "text_encoder": ("LDMBertModel", {}),  # diffusers' default config is this model's
    },
}


def scheduler_config(prediction_type: str) -> dict[str, Any]:
    """Stable Diffusion's noise schedule and first sampler, as diffusers' DDIMScheduler has them."""
    return {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
