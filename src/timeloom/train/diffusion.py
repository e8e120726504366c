"""Train the U-Net to denoise: on images (one frame), or on clips with a temporal mechanism switched on.

Image and video are the same task: Latent-Shift's video U-Net is the image U-Net, key for key. Autoencoder and text
encoder are frozen (Latent-Shift, arXiv 2304.08477, Sec. 3.3); every frame is encoded on its own.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.adapters import Use, family
from timeloom.data.contact_sheet import contact_sheet
from timeloom.errors import TimeloomError
from timeloom.train.components import load_unet, training_schedule
from timeloom.train.encode import Encoder
from timeloom.train.lora import add_lora, save_lora
from timeloom.train.parallel import Processes
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task

if TYPE_CHECKING:
    from timeloom.generate.pipeline import TextToVideoPipeline

VALIDATION_TIMESTEPS = (50, 250, 500, 750, 950)
PREVIEW_CLIPS = 6


def seen_as_images(number: int, share: float) -> bool:
    """Whether this sample's clip is trained on as single frames: an even `share` of any stretch of samples."""
    return int((number + 1) * share) > int(number * share)


def min_snr_weights(alphas_cumprod: Tensor, gamma: float, velocity: bool) -> Tensor:
    """Weights of the error in the noise, or in the velocity, that weigh the error in the clean latents by
    min(SNR, gamma), SNR = ᾱ / (1 − ᾱ) (Min-SNR, arXiv 2303.09556, Sec. 3.4 and App. A).

    Args:
        alphas_cumprod: ᾱ in (0, 1), or from 0 for the velocity; any shape, and the result's.
        gamma: the paper recommends 5.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def shift_timesteps(timesteps: Tensor, total: int, shift: float) -> Tensor:
    """Timesteps 0 … total − 1, drawn evenly, so that they lean to noise (Stable Diffusion 3, arXiv 2403.03206, Eq. 23).

    A clip's frames are alike, so that more noise is needed to hide it than to hide one image.
    """
    share = (timesteps + 0.5) / total
    return (total * shift * share / (1 + (shift - 1) * share)).long()


class DiffusionTask(Task):
    """Mean squared error of the predicted noise, t uniform (Latent-Shift, Sec. 3.3); or of the predicted velocity."""

    encoder: Encoder

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        model = recipe.model
        unet = load_unet(model.unet, device, **model.mechanism)
        self.unet = self.network = unet
        if recipe.task == "video" and unet.config.temporal == "none" and model.temporal is None:
            raise TimeloomError(
                "model.temporal is missing, and the U-Net of model.unet has no temporal mechanism: say shift, "
                "attention or swap (or none, to train every frame on its own)."
            )
        if model.lora and unet.config.temporal not in ("none", "shift"):
            raise TimeloomError(f"model.lora: the U-Net's {unet.config.temporal} has tensors that no LoRA holds.")
        if model.lora:
            add_lora(unet, model.lora)
            self.product = "adapter"
        self.encoder = Encoder(recipe, device)
        self.schedule = training_schedule(model.unet, model.noise_schedule)
        predicts = self.schedule.config.prediction_type
        if predicts not in ("epsilon", "v_prediction"):
            raise TimeloomError(f"model.unet predicts {predicts!r}; training knows epsilon (noise) and v_prediction.")
        text_width = self.encoder.text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != text_width:
            raise TimeloomError(
                f"model.unet takes text of width {unet.config.cross_attention_dim}, "
                f"and model.text_encoder gives {text_width}."
            )
        channels = self.encoder.vae.config.latent_channels
        if unet.config.in_channels != channels:
            raise TimeloomError(
                f"model.unet takes latents of {unet.config.in_channels} channels, and model.vae gives {channels}."
            )
        if unet.config.temporal == "swap" and recipe.task == "video":
            self._require_windows_that_fit()
        if recipe.gradient_checkpointing:
            unet.enable_gradient_checkpointing()

    def _require_windows_that_fit(self) -> None:
        """Refuse windows of Swap-CA that no clip of the recipe fills: such a one was meant to be something else."""
        data, factor = self.recipe.data, 2 ** (len(self.encoder.vae.config.block_out_channels) - 1)
        sizes = data.sizes or [(data.height, data.width)]
        largest = (data.num_frames, *(max(side) // factor for side in zip(*sizes, strict=True)))
        axes = ("frames", "rows of latents", "columns of latents")
        for axis, window, size in zip(axes, self.unet.config.swap["window"], largest, strict=True):
            if window > size:
                raise TimeloomError(
                    f"model.swap.window: windows of {window} {axis} are larger than the clips, which have {size}; "
                    f"give at most {size}, or 0 for all."
                )

    def frozen(self) -> dict[str, nn.Module]:
        return self.encoder.networks

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.encoder.latents(batch)
        dropped = (random.uniform() < self.recipe.loss.caption_dropout).tolist()
        captions = ["" if drop else caption for caption, drop in zip(batch.captions, dropped, strict=True)]
        text = self.encoder.text(captions)
        noise = random.normal(tuple(latents.shape[1:])).to(self.device)
        steps = self.schedule.config.num_train_timesteps
        timesteps = shift_timesteps(random.integers(steps), steps, self.recipe.loss.timestep_shift).to(self.device)
        if offset := self.recipe.loss.offset_noise:
            noise = noise + offset * random.normal((1, latents.shape[2], 1, 1)).to(self.device)

        still = [seen_as_images(number, self.recipe.loss.image_share) for number in random.numbers]
        moving = [i for i, image in enumerate(still) if not image]
        images = [i for i, image in enumerate(still) if image]
        errors, metrics = [], {}
        if moving:
            error = self._error(latents[moving], noise[moving], timesteps[moving], text[moving])
            errors.append(error * self._weights(timesteps[moving]))
            metrics["video" if latents.shape[1] > 1 else "image"] = error.detach().mean()
        if images:  # each frame of these clips on its own
            frames = latents.shape[1]
            error = self._error(
                latents[images].flatten(0, 1)[:, None],
                noise[images].flatten(0, 1)[:, None],
                timesteps[images].repeat_interleave(frames),
                text[images].repeat_interleave(frames, dim=0),
            )
            errors.append(error.unflatten(0, (-1, frames)).mean(dim=1) * self._weights(timesteps[images]))
            metrics["image"] = error.detach().mean()
        if self.recipe.task == "video":
            pictures = len(images) if latents.shape[1] > 1 else len(still)
            metrics["share/images"] = torch.tensor(pictures / len(still))
        return torch.cat(errors).mean(), metrics

    def _error(self, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """(B,) mean squared error of each clip's predicted noise, or velocity."""
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        predicted = self.network(noisy, timesteps, encoder_hidden_states=text).sample
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        return F.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3, 4))

    def _weights(self, timesteps: Tensor) -> Tensor:
        """(B,) weight of each clip's error."""
        gamma = self.recipe.loss.min_snr_gamma
        if gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        velocity = self.schedule.config.prediction_type == "v_prediction"
        return min_snr_weights(self.schedule.alphas_cumprod.to(timesteps.device)[timesteps], gamma, velocity)

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """Held-out loss, in all and at fixed timesteps, captions never dropped.

        Each clip on its own: what can be trained can be validated, however many are held out.
        """
        errors: dict[str, list[Tensor]] = defaultdict(list)
        for i in range(len(batch.examples)):
            clip = batch.part(i, i + 1)
            latents, text = self.encoder.latents(clip), self.encoder.text(clip.captions)
            noise = random.part(i, i + 1).normal(tuple(latents.shape[1:])).to(self.device)
            for thousandth in VALIDATION_TIMESTEPS:
                timestep = thousandth * self.schedule.config.num_train_timesteps // 1000
                timesteps = torch.full((len(latents),), timestep, device=self.device)
                errors[f"loss_t{timestep:03d}"].append(self._error(latents, noise, timesteps, text))
        losses = {name: torch.cat(parts).mean().item() for name, parts in errors.items()}
        return {"loss": sum(losses.values()) / len(losses), **losses}

    def preview(self, batch: Batch) -> np.ndarray:
        """Clips for the prompts, shared among the processes, each drawn alone: however many processes, the same."""
        options = self.recipe.preview
        prompts = options.prompts or batch.captions[:PREVIEW_CLIPS]
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        clips = Processes().share(lambda i: pipeline(prompts[i], seeds=[i]).frames[0], range(len(prompts)))
        return contact_sheet(clips, prompts)

    def save(self, folder: Path) -> None:
        lora = self.recipe.model.lora
        if not lora:
            self.pipeline().save_pretrained(folder)
            return
        data, config = self.recipe.data, self.unet.config
        use = Use(
            temporal=config.temporal,
            shift_fraction=config.shift_fraction,
            shift_placement=config.shift_placement,
            num_frames=data.num_frames,
            fps=data.fps,
            height=data.height,
            width=data.width,
            prediction_type=self.schedule.config.prediction_type,
            family=family(config),
        )
        save_lora(self.unet, folder, use, lora.dtype)

    def pipeline(self) -> TextToVideoPipeline:
        from timeloom.generate.pipeline import TextToVideoPipeline
        from timeloom.generate.schedulers import make_scheduler

        data, preview = self.recipe.data, self.recipe.preview
        return TextToVideoPipeline(
            **self.encoder.networks,
            tokenizer=self.encoder.tokenizer,
            unet=self.unet,
            scheduler=make_scheduler(preview.sampler, self.schedule.config),
            num_frames=data.num_frames,
            fps=data.fps,
            height=data.height,
            width=data.width,
            num_inference_steps=preview.num_inference_steps,
            guidance_scale=preview.guidance_scale,
        )
