"""Train a small CLIP text encoder against clips, so that words of motion carry meaning.

Captions and clips of a batch are told apart by a symmetric cross-entropy over their similarities (CLIP, arXiv
2103.00020, Fig. 3). That alone lets go of words that few pairs need, such as the digit's. So a caption's words must
also be read back from the mean of its features: an untrained cross-attention is nearly uniform, so the mean is what a
U-Net sees first. Video tower and heads are thrown away after training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from timeloom.errors import TimeloomError
from timeloom.train.components import new_text_encoder
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task

VIDEO_SIDE = 32
"""Frames are shrunk to this side for the video tower."""


class VideoTower(nn.Module):
    """A clip in one vector: strided convolutions over each frame, then over time."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 4),  # one vector a frame
            nn.GELU(),
        )
        self.time = nn.Sequential(
            nn.Conv1d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
        )
        self.head = nn.Linear(4 * width, embedding)

    def forward(self, frames_BFCHW: Tensor) -> Tensor:
        """(B, F, 3, 32, 32) to (B, E)."""
        x = self.frames(frames_BFCHW.flatten(0, 1)).flatten(1)
        x = x.unflatten(0, frames_BFCHW.shape[:2]).transpose(1, 2)  # (B, C, F)
        x = x + self.time(x)
        return self.head(torch.cat([x.mean(dim=-1), x.amax(dim=-1)], dim=-1))


class TextAndVideo(nn.Module):
    """Both towers and the temperature."""

    def __init__(self, text_encoder: CLIPTextModel, width: int) -> None:
        super().__init__()
        embedding = text_encoder.config.hidden_size
        self.text_encoder = text_encoder
        self.text_head = nn.Linear(embedding, embedding, bias=False)
        self.word_head = nn.Linear(embedding, text_encoder.config.vocab_size)
        self.video = VideoTower(width, embedding)
        self.log_temperature = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), CLIP Sec. 2.5

    def forward(self, tokens_BL: Tensor, frames_BFCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, B) scaled similarities, captions down and clips across; (B, V) scores of the words of each caption."""
        out = self.text_encoder(tokens_BL)
        text = F.normalize(self.text_head(out.pooler_output).float(), dim=-1)
        video = F.normalize(self.video(frames_BFCHW).float(), dim=-1)
        similarities = text @ video.T * self.log_temperature.clamp(max=4.6052).exp()  # at most 100, CLIP Sec. 2.5
        return similarities, self.word_head(out.last_hidden_state.mean(dim=1)).float()


class TextEncoderTask(Task):
    """`model.text_encoder` is a config: CLIPTextConfig's keys, and `vocab_size`, `max_length`, `video_width`."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        source = recipe.model.text_encoder
        if not isinstance(source, dict):
            raise TimeloomError("model.text_encoder: training a text encoder takes a config (hidden_size, ...).")
        self.options: dict[str, Any] = dict(source)
        self.vocab_size = self.options.pop("vocab_size", 1024)
        self.max_length = self.options.pop("max_length", 77)
        self.video_width = self.options.pop("video_width", 64)
        self.tokenizer: CLIPTokenizer

    def prepare(self, folder: Path, captions: Iterable[str]) -> None:
        """Learn the vocabulary from captions, once, and build the towers for it."""
        if not (folder / "tokenizer").is_dir():
            train_tokenizer(captions, self.vocab_size, self.max_length).save_pretrained(folder / "tokenizer")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.text_encoder = new_text_encoder(self.options, self.tokenizer)
        self.network = TextAndVideo(self.text_encoder, self.video_width).to(self.device)

    def _compare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Similarities (B, B), and how badly the captions' words are read back."""
        tokens = self.tokenizer(batch.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        frames = batch.pixels(self.device)
        small = F.interpolate(frames.flatten(0, 1), size=(VIDEO_SIDE, VIDEO_SIDE), mode="area")
        tokens = tokens.to(self.device)
        similarities, scores = self.network(tokens, small.unflatten(0, frames.shape[:2]))
        special = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]  # padding is written as the latter
        return similarities, reading_loss(scores, tokens, special)

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        similarities, reading = self._compare(batch)
        own = torch.arange(len(similarities), device=self.device)
        contrast = (F.cross_entropy(similarities, own) + F.cross_entropy(similarities.T, own)) / 2
        matched = (similarities.detach().argmax(dim=1) == own).float().mean()
        loss = contrast + self.recipe.loss.reading_weight * reading
        return loss, {"contrast": contrast.detach(), "reading": reading.detach(), "matched": matched}

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        loss, metrics = self.loss(batch, random)
        return {"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}}

    @torch.no_grad()
    def preview(self, batch: Batch) -> np.ndarray:
        """Probabilities of each clip (across) for each caption (down): a bright diagonal is right."""
        probabilities = self._compare(batch)[0][:32, :32].softmax(dim=1)
        grey = (probabilities * 255).round().to(torch.uint8).repeat_interleave(12, 0).repeat_interleave(12, 1)
        return grey[..., None].expand(-1, -1, 3).cpu().numpy()

    def save(self, folder: Path) -> None:
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


def reading_loss(scores_BV: Tensor, tokens_BL: Tensor, special: list[int]) -> Tensor:
    """Kullback-Leibler divergence in nats, mean over captions, from each caption's words (the share of every token
    among its tokens, `special` ones left out) to the softmax of its scores."""
    words = F.one_hot(tokens_BL, scores_BV.shape[1]).sum(dim=1).float()
    words[:, special] = 0
    shares = words / words.sum(dim=1, keepdim=True).clamp(min=1)
    return F.kl_div(scores_BV.log_softmax(dim=1), shares, reduction="batchmean")


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> CLIPTokenizer:
    """A CLIP tokenizer (lower case, byte-level pairs) whose merges are learnt from `captions`.

    Every byte has its own token, alone and at a word's end, so any text can be written; `vocab_size` counts them.
    """
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    room = max(0, vocab_size - len(pieces) - 2)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]][:room]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)
