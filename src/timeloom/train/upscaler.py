"""Train the super-resolution network: on clips made worse and smaller, by the mean absolute error of its pixels.

Every frame stands on its own, as in VideoFactory (arXiv 2305.10874, Sec. 3.4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timeloom.data.contact_sheet import contact_sheet
from timeloom.errors import TimeloomError
from timeloom.models.rcan import RCAN
from timeloom.train.components import load_upscaler, load_vae
from timeloom.train.precision import precision
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task
from timeloom.upscale.degradation import Degradation, sample_degradation
from timeloom.upscaler import Upscaler, bicubic, to_bytes

PREVIEW_CLIPS = 4


class Degrader:
    """Makes the clips of a batch worse and smaller, each by its own random numbers."""

    def __init__(self, recipe: Recipe, scale: int, device: torch.device) -> None:
        self.options, self.scale, self.precision, self.device = recipe.degradation, scale, recipe.precision, device
        self.vae = None
        if self.options.autoencoder:
            self.vae = load_vae(recipe.model.vae, device).requires_grad_(False).eval()
            self.multiple = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(self, clips_BFCHW: Tensor, random: SampleRandom) -> Tensor:
        """(B, F, 3, H, W) in [0, 1] → (B, F, 3, H/S, W/S)."""
        drawn = self.sample(random)
        return torch.stack([self.one(degradation, clip) for degradation, clip in zip(drawn, clips_BFCHW, strict=True)])

    def sample(self, random: SampleRandom) -> list[Degradation]:
        """What each sample goes through."""
        return [sample_degradation(self.options, seed) for seed in random.integers(2**62).tolist()]

    def one(self, degradation: Degradation, frames: Tensor) -> Tensor:
        """A clip (F, 3, H, W), by what was drawn for it."""
        if self.vae is None:
            return degradation(frames, self.scale)
        return degradation(frames, self.scale, self._through_vae, self.multiple)

    def _through_vae(self, frames: Tensor) -> Tensor:
        assert self.vae is not None
        with precision(self.precision, self.device):
            images = self.vae.decode(self.vae.encode(2 * frames - 1).latent_dist.mean).sample
        return images.float() / 2 + 0.5


class UpscalerTask(Task):
    """Mean absolute error of the pixels of random crops (RCAN, arXiv 1807.02758, Eq. 4)."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self.upscaler: RCAN = load_upscaler(recipe.model.upscaler, device)
        self.network: nn.Module = self.upscaler
        self.scale = int(self.upscaler.config.scale)
        data = recipe.data
        for name, side in (("loss.crop", recipe.loss.crop), ("data.height", data.height), ("data.width", data.width)):
            if side % self.scale:
                raise TimeloomError(f"{name}: {side} pixels do not divide by the scale {self.scale} of model.upscaler.")
        self.degrader = Degrader(recipe, self.scale, device)

    def pairs(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """Small and large crops, (N, 3, h, w) and (N, 3, H, W) in [0, 1]."""
        large = batch.pixels(self.device) / 2 + 0.5
        if side := self.recipe.loss.crop:
            places = random.uniform((2,))
            large = torch.stack([_crop(clip, side, place) for clip, place in zip(large, places, strict=True)])
        if self.device.type == "meta":  # a plan: what is drawn has no values there
            return large[..., :: self.scale, :: self.scale].flatten(0, 1), large.flatten(0, 1)
        return self.degrader(large, random).flatten(0, 1), large.flatten(0, 1)

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        small, large = self.pairs(batch, random)
        return (self.network(small) - large).abs().mean(), {}

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """On whole frames: the loss, and the peak signal-to-noise ratio of all colours beside the bicubic one's."""
        errors, plain, absolute = [], [], []
        large = batch.pixels(self.device) / 2 + 0.5
        for high, low in zip(large, self.degrader(large, random), strict=True):
            made = Upscaler(self.upscaler)(low)
            errors.append(_psnr(made, high))
            plain.append(_psnr(bicubic(low, self.scale), high))
            absolute.append((made - high).abs().mean())
        means = [torch.stack(values).mean().item() for values in (absolute, errors, plain)]
        return {"loss": means[0], "psnr_db": means[1], "psnr_db_bicubic": means[2]}

    @torch.no_grad()
    def preview(self, batch: Batch) -> np.ndarray:
        """The first frame of some clips: made worse and enlarged by bicubic, by the network, and as it was."""
        large = batch.part(0, PREVIEW_CLIPS).pixels(self.device) / 2 + 0.5
        low = self.degrader(large, SampleRandom(self.recipe.seed, list(range(len(large)))))
        columns = bicubic(low[:, 0], self.scale), Upscaler(self.upscaler)(low[:, 0]), large[:, 0]
        strips = np.stack([to_bytes(images) for images in columns], axis=1)
        return contact_sheet(list(strips), batch.captions[:PREVIEW_CLIPS], title="bicubic | network | original")

    def save(self, folder: Path) -> None:
        Upscaler(self.upscaler).save_pretrained(folder)

    def frozen(self) -> dict[str, nn.Module]:
        return {} if self.degrader.vae is None else {"vae": self.degrader.vae}


def _crop(clip: Tensor, side: int, place: Tensor) -> Tensor:
    """A square of (F, 3, H, W), `place` in [0, 1)² of where it can lie."""
    top, left = (int(p * (size - side + 1)) for p, size in zip(place.tolist(), clip.shape[-2:], strict=True))
    return clip[..., top : top + side, left : left + side]


def _psnr(made: Tensor, wanted: Tensor) -> Tensor:
    """In dB, of frames in [0, 1], a mean over the frames."""
    return -10 * torch.log10((made - wanted).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)).mean()
