"""The network of *digits*: features of moving handwriting, so that every metric runs with what the package holds.

Timeloom trained it (recipe `digits/features`) to tell digit, colour, background and motion, and which sentence goes
with which clip. It knows nothing else: numbers that rest on it are no FVD, FID, IS or CLIPSIM, and are named apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.extractor import Classifier, Extractor, Rows, Source
from timeloom.evaluate.networks.resize import antialiased_bicubic, centre_crop, short_side
from timeloom.evaluate.networks.weights import check_hash, load_into, read_tensors
from timeloom.generate.model_folder import find_model, load_part
from timeloom.model_files import INDEX, hash_text_encoder, load_tokenizer, read_json, text_encoder_of
from timeloom.models.video_classifier import VideoClassifier

NAME = "digits-features"
VIDEO_CLASSES = ("digit", "motion")
IMAGE_CLASSES = ("digit", "colour")


class _Digits(Extractor):
    """How all of them prepare pixels: the square in the middle, where the digit is, 64 a side, in −1…1."""

    side: ClassVar[int] = 64
    resize: str = "antialias, crop"

    network: VideoClassifier

    def _prepare(self, items: Tensor) -> Tensor:
        videos = items if items.ndim == 5 else items[:, None]
        frames = videos.flatten(0, 1).permute(0, 3, 1, 2).float()
        size = short_side(frames.shape[2], frames.shape[3], self.side, round_up=False)
        if size != frames.shape[2:]:
            frames = antialiased_bicubic(frames, *size)
        return (centre_crop(frames, self.side) / 127.5 - 1).unflatten(0, videos.shape[:2])

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network(prepared).features

    def _joint(self, prepared: Tensor, attributes: tuple[str, str]) -> Tensor:
        """(B, n · m) logarithms of the chances of both attributes' values, as if neither knew of the other."""
        logits = self.network(prepared).logits
        first, second = (logits[name].log_softmax(dim=1) for name in attributes)
        return (first[:, :, None] + second[:, None]).flatten(1)


class DigitsVideo(_Digits, Classifier):
    """128 features a clip; its 130 classes are a digit doing a motion."""

    name: ClassVar[str] = "digits-video"
    takes: ClassVar[Literal["frames", "clips"]] = "clips"
    dimension: ClassVar[int] = 128
    num_classes: ClassVar[int] = 130

    def _logits(self, prepared: Tensor) -> Tensor:
        return self._joint(prepared, VIDEO_CLASSES)


class DigitsImage(_Digits, Classifier):
    """128 features a frame; its 80 classes are a digit in a colour."""

    name: ClassVar[str] = "digits-image"
    takes: ClassVar[Literal["frames", "clips"]] = "frames"
    dimension: ClassVar[int] = 128
    num_classes: ClassVar[int] = 80

    def _logits(self, prepared: Tensor) -> Tensor:
        return self._joint(prepared, IMAGE_CLASSES)


class DigitsTextVideo(_Digits):
    """64 features a clip, of length 1, and of texts in the same space. Clips are seen whole: texts tell of motion."""

    name: ClassVar[str] = "digits-text-video"
    takes: ClassVar[Literal["frames", "clips"]] = "clips"
    dimension: ClassVar[int] = 64

    def __init__(
        self, network: VideoClassifier, text_encoder: Any, tokenizer: Any, source: Source, **options: Any
    ) -> None:
        super().__init__(network, source, **options)
        self.text_encoder = text_encoder.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> Rows:
        """(len(texts), 64).

        Raises:
            TimeloomError: features that are not finite, or no text at all.
        """
        if not texts:
            raise TimeloomError(f"{self.name} needs at least one text.")
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        parts = [self.text_encoder(part.to(self.device))[0] for part in tokens.split(self.batch_size)]
        rows = self.network.embed_text(torch.cat(parts).float()).cpu().numpy()
        if not np.isfinite(rows).all():
            raise TimeloomError(f"{self.name} gives texts features that are not finite; see {self.source.path}.")
        return rows

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network(prepared).embedding


def load_digits_video(weights: Path | None = None, **options: Any) -> DigitsVideo:
    """For FVD's kin. `weights`: a folder that `digits/features` trained; None takes the zoo's.

    `options` are `device` and `batch_size` of the extractor.

    Raises:
        TimeloomError: no such folder, or one with something else in it.
    """
    return DigitsVideo(*_load(_folder(weights)), **options)


def load_digits_image(weights: Path | None = None, **options: Any) -> DigitsImage:
    """For FID's and IS's kin; as `load_digits_video`."""
    return DigitsImage(*_load(_folder(weights)), **options)


def load_digits_text_video(weights: Path | None = None, **options: Any) -> DigitsTextVideo:
    """For CLIPSIM's kin; as `load_digits_video`. Sentences go through the text encoder that it was trained beside.

    Raises:
        TimeloomError: as there, or that text encoder is not here, or is another one by now.
    """
    folder = _folder(weights)
    network, source = _load(folder)
    config = read_json(folder / "config.json")
    model = find_model(config["text_encoder"])
    if hash_text_encoder(model) != config["text_encoder_sha256"]:
        raise TimeloomError(
            f"{folder} was trained beside another text encoder than the one in {model}; train it again beside this one."
        )
    index = read_json(model / INDEX) if (model / INDEX).is_file() else {"text_encoder": "CLIPTextModel"}
    text_encoder = load_part(model, index, "text_encoder", torch.float32)
    tokenizer = load_tokenizer(text_encoder_of(model, index), model / "tokenizer")
    return DigitsTextVideo(network, text_encoder, tokenizer, source, **options)


def _folder(weights: Path | None) -> Path:
    folder = zoo.ZOO / NAME if weights is None else weights.expanduser()
    if not (folder / "model.safetensors").is_file():
        raise TimeloomError(
            f"{folder} holds no model.safetensors: give the model/ folder of a run of digits/features, or leave it out "
            f"for {NAME}, which comes with the package."
        )
    return folder


def _load(folder: Path) -> tuple[VideoClassifier, Source]:
    path = folder / "model.safetensors"
    config = read_json(folder / "config.json")
    options = {name: value for name, value in config.items() if not name.startswith("text_encoder")}
    try:
        with torch.device("meta"):
            network = VideoClassifier(**options)
    except (TypeError, ValueError, AttributeError) as error:
        raise TimeloomError(f"{folder / 'config.json'} is not that of {NAME}: {error}.") from error
    load_into(network, NAME, read_tensors(path), path)
    sizes = network.neck.out_features, network.video_head.out_features
    if sizes != (DigitsVideo.dimension, DigitsTextVideo.dimension):
        raise TimeloomError(
            f"{folder} gives {sizes[0]} features and {sizes[1]} beside texts; what measures needs "
            f"{DigitsVideo.dimension} and {DigitsTextVideo.dimension}."
        )
    return network, check_hash(path, ())
