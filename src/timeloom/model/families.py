"""Well-known image models as parts, without their weights."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL

from timeloom.errors import unknown_name
from timeloom.model.parts import Model, Part
from timeloom.models.families import FAMILIES, scheduler_config
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.models.unet import VideoUNet


def known_model(name: str) -> Model:
    """A well-known image model without weights: sd15, sd21, ldm-text2img-large or modelscope.

    Raises:
        TimeloomError: an unknown name.
    """
    if name not in FAMILIES:
        raise unknown_name("config", name, FAMILIES)
    family = FAMILIES[name]
    text_class, text_config = family["text_encoder"]
    return Model(
        Part("unet", VideoUNet, family["unet"], Path(name)),
        Part("vae", AutoencoderKL, family["vae"], Path(name)),
        Part("text_encoder", TEXT_ENCODERS[text_class].network, text_config, Path(name)),
        scheduler="DDIMScheduler",
        scheduler_config=scheduler_config(family.get("prediction_type", "epsilon")),
        tokenizer=None,
    )
