"""CLIP ViT-B/32, whose images and sentences lie in one space: for CLIPSIM, and for FID on its features.

The network is Radford et al. 2021 (arXiv 2103.00020) as transformers has it; CLIPSIM is that of GODIVA (arXiv
2104.14806).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.extractor import Extractor, Rows, Source
from timeloom.evaluate.networks.resize import centre_crop, pillow_bicubic, short_side
from timeloom.evaluate.networks.weights import FOLDER, KnownFile, check_hash
from timeloom.model_files import first_line, load_tokenizer, quiet_libraries
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.weight_files import find_weights

HUB_ID = "openai/clip-vit-base-patch32"
FILES = (
    KnownFile(
        "pytorch_model.bin",
        f"{HUB_ID} on the Hub",
        605_247_071,
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
)
SHAPE = {"patch_size": 32, "image_size": 224, "hidden_size": 768, "num_hidden_layers": 12}
"""What makes a vision tower ViT-B/32."""

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_WANTED = ("*.json", "*.txt", "model.safetensors", "pytorch_model.bin")


class ClipFeatures(Extractor):
    """512 features a frame, as they come: a cosine divides by their length. Texts have features in the same space."""

    name: ClassVar[str] = "clip"
    takes: ClassVar[Literal["frames", "clips"]] = "frames"
    dimension: ClassVar[int] = 512
    side: ClassVar[int] = 224
    resize = "antialias, crop"
    pixels = "CLIP's mean 0 and deviation 1"

    network: CLIPModel

    def __init__(self, network: CLIPModel, tokenizer: Any, source: Source, **options: Any) -> None:
        super().__init__(network, source, **options)
        self.tokenizer = tokenizer

    def text_features(self, texts: Sequence[str]) -> Rows:
        """(len(texts), 512). CLIP reads 77 tokens; what is longer is cut there, as everybody does.

        Raises:
            TimeloomError: features that are not finite, or no text at all.
        """
        if not texts:
            raise TimeloomError("CLIP needs at least one text.")
        found = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            length = self.network.config.text_config.max_position_embeddings
            tokens = self.tokenizer(batch, padding=True, truncation=True, max_length=length, return_tensors="pt")
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                pooled = self.network.text_model(**tokens.to(self.device)).pooler_output
                found.append(self.network.text_projection(pooled).float().cpu())
        rows = torch.cat(found).numpy()
        if not np.isfinite(rows).all():
            raise TimeloomError(f"clip gives texts features that are not finite; the weights: {self.source.path}.")
        return rows

    def _prepare(self, items: Tensor) -> Tensor:
        images = items.permute(0, 3, 1, 2).float()
        size = short_side(images.shape[2], images.shape[3], self.side, round_up=False)
        images = centre_crop(pillow_bicubic(images, *size), self.side) / 255
        mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return (images - mean) / std

    def _features(self, prepared: Tensor) -> Tensor:
        return self.network.visual_projection(self.network.vision_model(pixel_values=prepared).pooler_output)


def load_clip(weights: Path | None = None, **options: Any) -> ClipFeatures:
    """CLIP ViT-B/32 from a folder in transformers' format.

    Args:
        weights: the folder; None looks for `clip-vit-base-patch32` in the folder that TIMELOOM_WEIGHTS names, and
            for openai/clip-vit-base-patch32 in the Hub's cache.
        options: `device` and `batch_size` of the extractor.

    Raises:
        TimeloomError: no such folder, another CLIP, tensors missing or left over, a wrong hash.
    """
    folder = _find_folder(weights)
    source = check_hash(find_weights(folder, None)[0], FILES)
    network = _load_network(folder)
    vision = network.config.vision_config
    if differing := [f"{name} {getattr(vision, name)}" for name in SHAPE if getattr(vision, name) != SHAPE[name]]:
        raise TimeloomError(f"{folder} is no CLIP ViT-B/32, the one of CLIPSIM: {', '.join(differing)}.")
    return ClipFeatures(network, load_tokenizer(TEXT_ENCODERS["CLIPTextModel"], folder), source, **options)


def _find_folder(weights: Path | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    own = os.environ.get(FOLDER)
    given = weights or (Path(own) / HUB_ID.rpartition("/")[2] if own else None)
    if given is not None and (folder := given.expanduser()).is_dir():
        return folder
    if weights is None:
        try:
            return Path(snapshot_download(HUB_ID, allow_patterns=list(_WANTED), local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            pass
    places = [str(given)] if given else [f"the folder that {FOLDER} names (it is not set)"]
    places += [] if weights else [f"the Hub's cache {HF_HUB_CACHE}"]
    raise TimeloomError(
        f"CLIP ViT-B/32 is not here, and nothing is downloaded. Its folder is needed: {HUB_ID}, with {FILES[0]}. "
        f"Looked for in {', '.join(places)}. Where there is a network: hf download {HUB_ID}; or give the folder's path."
    )


def _load_network(folder: Path) -> CLIPModel:
    try:
        with quiet_libraries():
            network, report = CLIPModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
    except Exception as error:  # transformers has an error for everything
        raise TimeloomError(f"{folder} cannot be loaded as CLIP: {first_line(error)}") from error
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    strange = sorted(key for key in report["unexpected_keys"] if not key.endswith("position_ids"))
    if lacking or strange:
        raise TimeloomError(
            f"{folder} does not hold the weights of a whole CLIP: {len(lacking)} tensors are missing or of another "
            f"shape, {len(strange)} are unknown ({', '.join([*lacking, *strange][:3])})."
        )
    return network
