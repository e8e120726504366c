"""Train the super-resolution network: on clips made worse and smaller, by the error of its pixels.

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
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task
from timeloom.upscale.degrader import Degrader
from timeloom.upscaler import Upscaler, bicubic, to_bytes

PREVIEW_CLIPS = 4


class UpscalerTask(Task):
    """The error of the pixels of random crops: mean absolute (RCAN, arXiv 1807.02758, Eq. 4), or −PSNR."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self.upscaler: RCAN = load_upscaler(recipe.model.upscaler, device)
        self.network: nn.Module = self.upscaler
        self.scale = int(self.upscaler.config.scale)
        data = recipe.data
        for name, side in (("loss.crop", recipe.loss.crop), ("data.height", data.height), ("data.width", data.width)):
            if side % self.scale:
                raise TimeloomError(f"{name}: {side} pixels do not divide by the scale {self.scale} of model.upscaler.")
        vae = load_vae(recipe.model.vae, device) if recipe.degradation.autoencoder else None
        self.degrader = Degrader(recipe.degradation, self.scale, vae.requires_grad_(False).eval() if vae else None)

    def pairs(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """Small and large crops, (N, 3, h, w) and (N, 3, H, W) in [0, 1]."""
        large = self.crops(batch, random)
        if self.device.type == "meta":  # a plan: what is drawn has no values there
            return large[..., :: self.scale, :: self.scale].flatten(0, 1), large.flatten(0, 1)
        return self.degrader(large, seeds_of(random)).flatten(0, 1), large.flatten(0, 1)

    def crops(self, batch: Batch, random: SampleRandom) -> Tensor:
        """What a batch's clips are made worse from, (B, F, 3, H, W) in [0, 1]: crops, mirrored and turned."""
        large = batch.pixels(self.device) / 2 + 0.5
        if side := self.recipe.loss.crop:
            places = random.uniform((2,))
            large = torch.stack([_crop(clip, side, place) for clip, place in zip(large, places, strict=True)])
        return torch.stack([_turned(clip, way) for clip, way in zip(large, random.uniform((3,)), strict=True)])

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        small, large = self.pairs(batch, random)
        made = self.network(small)
        if self.recipe.loss.pixels == "psnr":
            return -_psnr(made, large), {}
        return (made - large).abs().mean(), {}

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """On whole frames: the loss, and the peak signal-to-noise ratio of all colours beside the bicubic one's."""
        errors, plain, absolute = [], [], []
        large = batch.pixels(self.device) / 2 + 0.5
        for high, low in zip(large, self.degrader(large, seeds_of(random)), strict=True):
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
        low = self.degrader(large, range(len(large)))
        columns = bicubic(low[:, 0], self.scale), Upscaler(self.upscaler)(low[:, 0]), large[:, 0]
        strips = np.stack([to_bytes(images) for images in columns], axis=1)
        return contact_sheet(list(strips), batch.captions[:PREVIEW_CLIPS], title="bicubic | network | original")

    def save(self, folder: Path) -> None:
        Upscaler(self.upscaler).save_pretrained(folder)

    def frozen(self) -> dict[str, nn.Module]:
        return {} if self.degrader.vae is None else {"vae": self.degrader.vae}


def seeds_of(random: SampleRandom) -> list[int]:
    """Of each sample's degradation."""
    return random.integers(2**62).tolist()


def _crop(clip: Tensor, side: int, place: Tensor) -> Tensor:
    """A square of (F, 3, H, W), `place` in [0, 1)² of where it can lie."""
    top, left = (int(p * (size - side + 1)) for p, size in zip(place.tolist(), clip.shape[-2:], strict=True))
    return clip[..., top : top + side, left : left + side]


def _turned(clip: Tensor, way: Tensor) -> Tensor:
    """(F, 3, H, W) mirrored by chance along its axes, and a square one along its diagonal (RCAN, Sec. 4.1)."""
    upside_down, mirrored, transposed = (way < 0.5).tolist()
    if upside_down:
        clip = clip.flip(-2)
    if mirrored:
        clip = clip.flip(-1)
    return clip.mT if transposed and clip.shape[-2] == clip.shape[-1] else clip


def _psnr(made: Tensor, wanted: Tensor) -> Tensor:
    """In dB, of frames in [0, 1], a mean over the frames."""
    return -10 * torch.log10((made - wanted).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)).mean()
