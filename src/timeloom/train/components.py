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
from timeloom.models.rcan import RCAN
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.models.unet import VideoUNet
from timeloom.network_files import load_network, require_finite
from timeloom.train.recipe import NoiseScheduleOptions
from timeloom.upscaler import load_rcan
from timeloom.zoo import resolve

Source = str | dict[str, Any] | None

FIRST_LOG_VARIANCE = -5.0
STABLE_DIFFUSION = {
    **{"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    **{"prediction_type": "epsilon", "clip_sample": False, "timestep_spacing": "trailing"},
}
"""The noise schedule of a U-Net that starts afresh."""


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


def _empty(network: Any, folder: Path, **options: Any) -> Any:
    """A diffusers network without its weights, on the meta device."""
    with torch.device("meta"):
        return network.from_config(network.load_config(folder), **options)


def load_vae(source: Source, device: torch.device) -> AutoencoderKL:
    """An autoencoder, from a folder or afresh."""
    source = _need(source, "vae")
    if isinstance(source, str):
        folder = _folder(source, "vae")
        if device.type == "meta":
            return _empty(AutoencoderKL, folder)
        return load_network(AutoencoderKL, folder).to(device)
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
        text_encoder = load_network(known.network, folder).to(device)
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
        folder = _folder(source, "unet")
        if device.type == "meta":
            return _empty(VideoUNet, folder, **temporal)
        unet = VideoUNet.from_pretrained(folder, **temporal)
        require_finite(folder, unet)
        return unet.to(device)
    return VideoUNet(**source, **temporal).to(device)


def load_upscaler(source: Source, device: torch.device) -> RCAN:
    """A super-resolution network, from a folder or afresh."""
    source = _need(source, "upscaler")
    return (load_rcan(source) if isinstance(source, str) else RCAN(**source)).to(device)


def training_schedule(source: Source, options: NoiseScheduleOptions) -> DDPMScheduler:
    """The noise schedule: the model's own, or Stable Diffusion's for a network afresh, but for what `options` say.
    Sampling starts at its noisiest step where it is afresh, or has no signal there.

    Raises:
        TimeloomError: no signal at the last step, and the noise to be predicted from that.
    """
    chosen = options.model_dump(exclude_none=True)
    if chosen.get("rescale_betas_zero_snr"):
        chosen["timestep_spacing"] = "trailing"
    if isinstance(source, str) and (folder := resolve(source) / "scheduler").is_dir():
        schedule = DDPMScheduler.from_pretrained(folder, **chosen)
    else:
        schedule = DDPMScheduler(**{**STABLE_DIFFUSION, **chosen})
    if schedule.config.rescale_betas_zero_snr and schedule.config.prediction_type == "epsilon":
        raise TimeloomError(
            "model.noise_schedule: rescale_betas_zero_snr needs prediction_type: v_prediction, "
            "for pure noise tells nothing of itself."
        )
    return schedule
