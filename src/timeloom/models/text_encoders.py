"""Text encoders of image models, each with its tokenizer: of Stable Diffusion, and of LDM text2img-large."""

from __future__ import annotations

from typing import Any, NamedTuple

from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from transformers import BertTokenizer, CLIPTextModel, CLIPTokenizer


class TextEncoder(NamedTuple):
    """The classes of a text encoder and its tokenizer."""

    network: Any
    tokenizer: Any
    library: str
    """Where diffusers looks for the network that a model_index.json names."""


TEXT_ENCODERS = {
    "CLIPTextModel": TextEncoder(CLIPTextModel, CLIPTokenizer, "transformers"),
    "LDMBertModel": TextEncoder(LDMBertModel, BertTokenizer, "latent_diffusion"),
}
"""By the name that a model folder's index gives."""
