"""The frozen networks before the U-Net: frames become latents, captions become features, each computed once.

Clips that come from files are encoded one by one and rounded to fp16, whether or not they are kept: what the U-Net
sees depends neither on batch mates nor on whether the cache had it. *digits*, which are drawn anew, are encoded
together and kept nowhere.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timeloom.data.clip import Clip, ClipSource, Window
from timeloom.data.sources import DataOptions
from timeloom.data.table_builder import cache_folder
from timeloom.errors import TimeloomError
from timeloom.tensor_cache import TensorCache, fingerprint
from timeloom.train.components import load_text_encoder, load_vae
from timeloom.train.precision import precision
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, Example

FRAMES_AT_ONCE = 64  # of *digits*
FREE_SHARE = 0.9
"""Of the free space on its disk, the cache may be expected to need at most this."""


class LatentCache:
    """Latents of windows of clips, by what the frames are and how they are encoded."""

    def __init__(self, files: TensorCache) -> None:
        self.files = files

    def path(self, clip: Clip, window: Window, start: float) -> Path | None:
        """Where the window's latents are kept; None for a clip that is drawn from nothing."""
        if clip.identity is None:
            return None
        return self.files.path(clip.identity(), window, 0.0 if clip.still else start)

    def get(self, path: Path) -> Tensor | None:
        """(F, C, h, w) scaled latents, fp16; None where they are missing or damaged."""
        return self.files.get(path)


class Encoder:
    """Autoencoder, text encoder and tokenizer of a recipe, frozen.

    Args:
        must_keep: raise OSError where the cache cannot be written; else go on without it.
    """

    def __init__(self, recipe: Recipe, device: torch.device, must_keep: bool = False) -> None:
        self.device, self.precision = device, recipe.precision
        self.vae = load_vae(recipe.model.vae, device).requires_grad_(False).eval()
        self.text_encoder, self.tokenizer = load_text_encoder(recipe.model.text_encoder, device)
        self.text_encoder.requires_grad_(False).eval()
        self.latent_cache: LatentCache | None = None
        self.text_cache: TensorCache | None = None
        self.keeps, self.must_keep = True, must_keep
        """Whether what is not in the cache is put there."""
        self._together = device.type == "meta" or all(source.source == "digits" for source in recipe.data.chosen)
        if recipe.data.cache and not self._together:
            folder, how = cache_folder() / "encoded", self.precision
            self.latent_cache = LatentCache(TensorCache(folder, "latents", fingerprint(self.vae), how))
            tokens = (sorted(self.tokenizer.get_vocab().items()), self.text_length, self.tokenizer.pad_token)
            self.text_cache = TensorCache(folder, "text", fingerprint(self.text_encoder), tokens, how)

    @property
    def networks(self) -> dict[str, Any]:
        """By their names in a model folder."""
        return {"vae": self.vae, "text_encoder": self.text_encoder}

    @property
    def text_length(self) -> int:
        """Tokens of a caption."""
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    @torch.no_grad()
    def latents(self, batch: Batch) -> Tensor:
        """Scaled latents (B, F, C, h, w): the posterior's mean, each frame on its own."""
        if not any(example.from_file for example in batch.examples):
            frames = batch.pixels(self.device)
            latents = torch.cat([self._encode(part) for part in frames.flatten(0, 1).split(FRAMES_AT_ONCE)])
            return latents.unflatten(0, frames.shape[:2])
        return torch.stack([self._latents_of(example) for example in batch.examples])

    def _latents_of(self, example: Example) -> Tensor:
        values = example.latents
        if values is None:
            values = self._rounded(self._encode(example.pixels(self.device)), "a clip's latents")
            if example.place is not None:
                self._keep(example.place, values)
        return values.to(self.device, non_blocking=True).float()

    @torch.no_grad()
    def text(self, captions: list[str]) -> Tensor:
        """(B, L, D) features of the captions, cut at the tokenizer's length."""
        if self._together:
            return self._encode_text(captions)
        return torch.cat([self._text_of(caption) for caption in captions])

    def _text_of(self, caption: str) -> Tensor:
        cache = self.text_cache
        path = cache.path(caption) if cache is not None else None
        features = cache.get(path) if cache is not None and path is not None else None
        if features is None:
            features = self._rounded(self._encode_text([caption]), "a caption's features")
            if path is not None:
                self._keep(path, features)
        return features.to(self.device).float()

    def _encode(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, C, h, w)."""
        with precision(self.precision, self.device):
            latents = self.vae.encode(frames).latent_dist.mean
        return latents.float() * self.vae.config.scaling_factor

    def _encode_text(self, captions: list[str]) -> Tensor:
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=self.text_length, truncation=True, return_tensors="pt"
        ).input_ids
        with precision(self.precision, self.device):
            return self.text_encoder(tokens.to(self.device))[0].float()

    @staticmethod
    def _rounded(values: Tensor, what: str) -> Tensor:
        rounded = values.half().contiguous()  # as it comes from a file: convolutions round by the order in memory
        if not torch.isfinite(rounded).all():
            raise TimeloomError(f"Encoding gives {what} that are not finite in fp16; try precision: fp32.")
        return rounded

    def _keep(self, path: Path, values: Tensor) -> None:
        if not self.keeps:
            return
        try:
            TensorCache.put(path, values)
        except OSError as error:
            if self.must_keep:
                raise
            self.keeps = False
            print(f"{path.parent}: {error.strerror}; from here on nothing more is kept.", file=sys.stderr)

    def bytes_of(self, window: Window) -> int:
        """Of a window's latents in the cache."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        pixels = window.height * window.width // factor**2
        return 2 * window.num_frames * self.vae.config.latent_channels * pixels

    @property
    def bytes_of_caption(self) -> int:
        """Of a caption's features in the cache."""
        return 2 * self.text_length * self.text_encoder.config.hidden_size

    def _bytes_kept(self) -> int:
        """Of everything that the cache has from these networks, this recipe's or not."""
        caches = (self.latent_cache and self.latent_cache.files, self.text_cache)
        return sum(cache.size_bytes() for cache in caches if cache)

    def plan_cache(self, training: ClipSource, held_out: ClipSource, data: DataOptions) -> str | None:
        """Say what the cache may come to need; where its disk has less, keep nothing more. None without a cache."""
        if self.latent_cache is None:
            return None
        windows = len(held_out) + (len(training) * data.windows if data.windows else 0)
        captions = len(held_out) + len(training)
        need = windows * self.bytes_of(data.window) + captions * self.bytes_of_caption
        folder = cache_folder()
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        line = f"cache: {folder / 'encoded'}, up to {need / 2**30:.2f} GiB, {free / 2**30:.1f} GiB free"
        if need <= FREE_SHARE * free or need - self._bytes_kept() <= FREE_SHARE * free:
            return line
        self.keeps = False
        return f"{line}: too little, so nothing more is kept (TIMELOOM_CACHE names another folder)"
