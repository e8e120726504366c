"""Degradations of whole batches, for training and for judging: what each clip goes through, by its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from timeloom.upscale.degradation import Degradation, DegradationOptions, sample_degradation


class Degrader:
    """Makes clips worse and smaller.

    Args:
        options: what may happen to a clip.
        scale: how many times smaller.
        vae: diffusers' AutoencoderKL, for options with an autoencoder.

    Raises:
        ValueError: the options have an autoencoder, and none is given.
    """

    def __init__(self, options: DegradationOptions, scale: int, vae: Any = None) -> None:
        if options.autoencoder and vae is None:
            raise ValueError("these degradations need an autoencoder")
        self.options, self.scale, self.vae = options, scale, vae
        self.multiple = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 1

    def sample(self, seed: int) -> Degradation:
        """What the clip of this seed goes through."""
        return sample_degradation(self.options, seed)

    @torch.no_grad()
    def __call__(self, clips_BFCHW: Tensor, seeds: Sequence[int]) -> Tensor:
        """(B, F, 3, H, W) in [0, 1] → (B, F, 3, H/S, W/S), always in fp32."""
        pairs = zip(clips_BFCHW, seeds, strict=True)
        return torch.stack([self.degrade(frames, self.sample(seed)) for frames, seed in pairs])

    @torch.no_grad()
    def degrade(self, frames: Tensor, degradation: Degradation) -> Tensor:
        """A clip (F, 3, H, W), by what was drawn for it."""
        with torch.autocast(frames.device.type, enabled=False):  # bf16 has no 256 gray levels
            coder = None if self.vae is None else self._round_trip
            return degradation(frames.float(), self.scale, coder, self.multiple)

    def _round_trip(self, frames: Tensor) -> Tensor:
        latents = self.vae.encode(2 * frames - 1).latent_dist.mean
        return self.vae.decode(latents).sample / 2 + 0.5
