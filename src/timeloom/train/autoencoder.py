"""Train the image autoencoder (diffusers' AutoencoderKL, f = 8, 4 channels). Every frame stands on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from timeloom.data.contact_sheet import contact_sheet
from timeloom.train.components import load_vae
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task

LATENT_STATISTICS_FRAMES = 512


class Reconstruction(nn.Module):
    """Encode, sample the posterior, decode."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images_NCHW: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1], normal noise like the latents: reconstructions, nats per latent number."""
        posterior = self.vae.encode(images_NCHW).latent_dist
        images = self.vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return images, kl


class AutoencoderTask(Task):
    """Mean squared error of pixels and a little Kullback-Leibler divergence, on random crops of single frames."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self.vae = load_vae(recipe.model.vae, device)
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.network = Reconstruction(self.vae)
        self.latent_frames: list[Tensor] = []

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        images = self._crop(batch.pixels(self.device), random).flatten(0, 1)
        height, width = (side // self.factor for side in images.shape[-2:])
        frames = len(images) // len(batch.captions)
        noise = random.normal((frames, self.vae.config.latent_channels, height, width)).flatten(0, 1)
        reconstructed, kl = self.network(images, noise.to(self.device))
        pixel = (reconstructed.float() - images).square().mean()
        return pixel + self.recipe.loss.kl_weight * kl, {"pixel": pixel.detach(), "kl": kl.detach()}

    def _crop(self, frames: Tensor, random: SampleRandom) -> Tensor:
        """A random square of each clip (B, F, 3, side, side), on the latents' grid; the whole frame for side 0."""
        side = self.recipe.loss.crop
        if not side:
            return frames
        places = random.uniform((2,))
        crops = []
        for clip, place in zip(frames, places, strict=True):
            room = [(size - side) // self.factor + 1 for size in clip.shape[-2:]]
            top, left = (int(p * r) * self.factor for p, r in zip(place.tolist(), room, strict=True))
            crops.append(clip[..., top : top + side, left : left + side])
        return torch.stack(crops)

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        images = batch.pixels(self.device).flatten(0, 1)
        latents = torch.cat([self.vae.encode(part).latent_dist.mean for part in images.split(64)])
        reconstructed = torch.cat([self.vae.decode(part).sample.clamp(-1, 1) for part in latents.split(64)])
        error = reconstructed - images
        psnr = 10 * torch.log10(4 / error.square().mean(dim=(1, 2, 3)).clamp_min(1e-10))
        self.latent_frames = [latents[:LATENT_STATISTICS_FRAMES]]
        return {"loss": error.square().mean().item(), "psnr_db": psnr.mean().item(), "psnr_db_worst": psnr.min().item()}

    @torch.no_grad()
    def preview(self, batch: Batch) -> np.ndarray:
        images = batch.pixels(self.device)[:8, 0]
        reconstructed = self.vae.decode(self.vae.encode(images).latent_dist.mean).sample
        both = torch.stack([images, reconstructed.clamp(-1, 1)], dim=1)  # (B, 2, 3, H, W)
        pixels = ((both.permute(0, 1, 3, 4, 2) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return contact_sheet(list(pixels), batch.captions[:8], columns=2, title="clip | reconstruction")

    def save(self, folder: Path) -> None:
        """`vae/`, with the scaling factor that gives the held-out latents unit variance (Latent Diffusion, App. G)."""
        if self.latent_frames:
            scale: Any = 1 / torch.cat(self.latent_frames).std().item()
            self.vae.register_to_config(scaling_factor=round(scale, 5))
        self.vae.save_pretrained(folder / "vae")
