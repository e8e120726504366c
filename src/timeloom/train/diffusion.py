"""Train the U-Net to denoise: on images (one frame), or on clips with a temporal mechanism switched on.

Image and video are the same task: Latent-Shift's video U-Net is the image U-Net, key for key. Autoencoder and text
encoder are frozen (Latent-Shift, arXiv 2304.08477, Sec. 3.3); every frame is encoded on its own.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.data import write_contact_sheet
from timeloom.errors import TimeloomError
from timeloom.train.components import load_text_encoder, load_unet, load_vae, training_schedule
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task

VALIDATION_TIMESTEPS = (50, 250, 500, 750, 950)
PREVIEW_CLIPS = 6


class DiffusionTask(Task):
    """Mean squared error of the predicted noise, t uniform (Latent-Shift, Sec. 3.3); or of the predicted velocity."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        model = recipe.model
        shift = {"shift_fraction": model.shift_fraction, "shift_placement": model.shift_placement}
        unet = load_unet(model.unet, temporal=model.temporal, **shift).to(device)
        self.unet = self.network = unet
        self.vae = load_vae(model.vae).requires_grad_(False).eval().to(device)
        self.text_encoder, self.tokenizer = load_text_encoder(model.text_encoder)
        self.text_encoder.requires_grad_(False).eval().to(device)
        self.schedule = training_schedule(model.unet, model.noise_schedule)
        predicts = self.schedule.config.prediction_type
        if predicts not in ("epsilon", "v_prediction"):
            raise TimeloomError(f"model.unet predicts {predicts!r}; training knows epsilon (noise) and v_prediction.")
        if unet.config.cross_attention_dim != self.text_encoder.config.hidden_size:
            raise TimeloomError(
                f"model.unet takes text of width {unet.config.cross_attention_dim}, "
                f"and model.text_encoder gives {self.text_encoder.config.hidden_size}."
            )
        if recipe.gradient_checkpointing:
            unet.enable_gradient_checkpointing()

    def frozen(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "text_encoder": self.text_encoder}

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Scaled latents (B, F, C, h, w): the posterior's mean, each frame on its own."""
        frames = batch.pixels(self.device)
        latents = torch.cat([self.vae.encode(part).latent_dist.mean for part in frames.flatten(0, 1).split(64)])
        return (latents * self.vae.config.scaling_factor).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Tensor:
        """(B, L, D) features of the captions, cut at the tokenizer's length."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.device))[0]

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.encode(batch)
        dropped = (random.uniform() < self.recipe.loss.caption_dropout).tolist()
        captions = ["" if drop else caption for caption, drop in zip(batch.captions, dropped, strict=True)]
        text = self.encode_text(captions)
        noise = random.normal(tuple(latents.shape[1:])).to(self.device)
        timesteps = random.integers(self.schedule.config.num_train_timesteps).to(self.device)

        images = round(self.recipe.loss.image_share * len(latents))
        clips = len(latents) - images
        error = self._error(latents[:clips], noise[:clips], timesteps[:clips], text[:clips])
        metrics = {"video" if latents.shape[1] > 1 else "image": error.detach().mean()}
        if images:  # the frames of the last clips, each one on its own
            frames = latents.shape[1]
            still = self._error(
                latents[clips:].flatten(0, 1)[:, None],
                noise[clips:].flatten(0, 1)[:, None],
                timesteps[clips:].repeat_interleave(frames),
                text[clips:].repeat_interleave(frames, dim=0),
            )
            metrics["image"] = still.detach().mean()
            error = torch.cat([error, still.unflatten(0, (images, frames)).mean(dim=1)])
        return error.mean(), metrics

    def _error(self, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """(B,) mean squared error of each clip's predicted noise, or velocity."""
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        predicted = self.network(noisy, timesteps, encoder_hidden_states=text).sample
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        return F.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3, 4))

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """Held-out loss, in all and at fixed timesteps, captions never dropped."""
        latents, text = self.encode(batch), self.encode_text(batch.captions)
        noise = random.normal(tuple(latents.shape[1:])).to(self.device)
        losses = {}
        for timestep in VALIDATION_TIMESTEPS:
            timesteps = torch.full((len(latents),), timestep, device=self.device)
            losses[f"loss_t{timestep:03d}"] = self._error(latents, noise, timesteps, text).mean().item()
        return {"loss": sum(losses.values()) / len(losses), **losses}

    def preview(self, batch: Batch, path: Path) -> None:
        options = self.recipe.preview
        prompts = options.prompts or batch.captions[:PREVIEW_CLIPS]
        pipeline = self._pipeline()
        pipeline.set_progress_bar_config(disable=True)
        frames = pipeline(prompts, seeds=list(range(len(prompts)))).frames
        write_contact_sheet(path, list(frames), prompts)

    def save(self, folder: Path) -> None:
        self._pipeline().save_pretrained(folder)

    def _pipeline(self):  # type: ignore[no-untyped-def]
        from timeloom.generate.pipeline import TextToVideoPipeline
        from timeloom.generate.schedulers import make_scheduler

        data, preview = self.recipe.data, self.recipe.preview
        return TextToVideoPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=make_scheduler(preview.sampler, self.schedule.config),
            num_frames=data.num_frames,
            fps=data.fps,
            height=data.height,
            width=data.width,
            num_inference_steps=preview.num_inference_steps,
            guidance_scale=preview.guidance_scale,
        )
