"""Where the parts of a model come from: a folder that holds them, or a config to start afresh.

On the meta device no weights are read: that is how a run is planned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from timeloom.errors import TimeloomError
from timeloom.model_files import INDEX, load_tokenizer, read_json, text_encoder_of
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.models.unet import VideoUNet
from timeloom.train.recipe import NoiseScheduleOptions
from timeloom.zoo import resolve

Source = str | dict[str, Any] | None

FIRST_LOG_VARIANCE = -5.0


def _folder(source: str, part: str) -> Path:
    """The folder of `part` within a model folder or zoo model."""
    folder = resolve(source)
    if not (folder / part).is_dir():
        raise TimeloomError(f"{folder} holds no {part}/: is it the model/ folder of the stage that trains it?")
    return folder / part


def _need(source: Source, part: str) -> str | dict[str, Any]:
    if source is None:
        raise TimeloomError(f"The recipe's model.{part} is missing: give a model folder, or a config to start afresh.")
    return source


def _read(network: Any, folder: Path, device: torch.device, **options: Any) -> Any:
    """A diffusers network from its folder; on the meta device without its weights."""
    if device.type == "meta":
        with device:
            return network.from_config(network.load_config(folder), **options)
    return network.from_pretrained(folder, use_safetensors=True, **options).to(device)


def load_vae(source: Source, device: torch.device) -> AutoencoderKL:
    """An autoencoder, from a folder or afresh."""
    source = _need(source, "vae")
    if isinstance(source, str):
        return _read(AutoencoderKL, _folder(source, "vae"), device)
    vae = AutoencoderKL(**source)
    with torch.no_grad():  # a narrow posterior at first: else its noise drowns what little the encoder says
        vae.quant_conv.bias[vae.config.latent_channels :] = FIRST_LOG_VARIANCE
    return vae.to(device)


def load_text_encoder(source: Source, device: torch.device) -> tuple[Any, Any]:
    """A trained text encoder and its tokenizer, from a folder: CLIP's, or what the folder's model_index.json names."""
    source = _need(source, "text_encoder")
    if not isinstance(source, str):
        raise TimeloomError("model.text_encoder: this task needs the folder of a trained text encoder.")
    folder = _folder(source, "text_encoder")
    index = folder.parent / INDEX
    known = text_encoder_of(folder.parent, read_json(index)) if index.is_file() else TEXT_ENCODERS["CLIPTextModel"]
    if device.type == "meta":
        with device:
            text_encoder = known.network(known.network.config_class.from_pretrained(folder))
    else:
        text_encoder = known.network.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).to(device)
    return text_encoder, load_tokenizer(known, _folder(source, "tokenizer"))


def new_text_encoder(config: dict[str, Any], tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A text encoder afresh, for the vocabulary of `tokenizer`."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    positions = {"max_position_embeddings": tokenizer.model_max_length}
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **positions, **special, **config))


def load_unet(source: Source, device: torch.device, **temporal: Any) -> VideoUNet:
    """A U-Net with a temporal mechanism, from any image or video model folder or afresh."""
    source = _need(source, "unet")
    if isinstance(source, str):
        return _read(VideoUNet, _folder(source, "unet"), device, **temporal)
    return VideoUNet(**source, **temporal).to(device)


def training_schedule(source: Source, options: NoiseScheduleOptions) -> DDPMScheduler:
    """The noise schedule: the model's own, or `options` for a network afresh. Sampling starts at its noisiest step."""
    if isinstance(source, str) and (resolve(source) / "scheduler").is_dir():
        return DDPMScheduler.from_pretrained(resolve(source) / "scheduler")
    return DDPMScheduler(**options.model_dump(), clip_sample=False, timestep_spacing="trailing")
