"""Captions of central frames by an image-to-text model, and how well they fit by a CLIP: both as transformers has them.

A batch is always full: the last one is filled up with its last picture. So a caption depends on its picture, the
model and the batch size alone, whichever clips it is computed with.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from timeloom.curate.recipe import CaptionOptions
from timeloom.errors import TimeloomError

ON_ACCELERATOR, ON_CPU = 32, 4
"""Pictures in a batch, unless said."""


def find_model(name: str) -> Path:
    """The folder of a model: `name` itself, or that of a Hub id in the local cache.

    Raises: TimeloomError that says where it was looked for.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    from timeloom.model_files import fetched

    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        raise TimeloomError(f"the model folder {folder} has no config.json.")
    found = fetched(name)
    if found and (found / "config.json").is_file():
        return found
    places = f"there is no folder {folder}, and no {name} in the Hub's cache {HF_HUB_CACHE}"
    raise TimeloomError(f"the model {name} is not here, and nothing is downloaded: {places}.")


def captioner(options: CaptionOptions, device: str) -> Captioner:
    """The captioner of these options, loaded once in a process. Raises TimeloomError as `Captioner` does."""
    return _captioner(options.model_dump_json(), device)


def similarity_judge(options: CaptionOptions, device: str) -> SimilarityJudge:
    """The judge of these options, loaded once in a process. Raises TimeloomError as `SimilarityJudge` does."""
    return _similarity_judge(options.model_dump_json(), device)


@lru_cache(maxsize=1)
def _captioner(options: str, device: str) -> Captioner:
    return Captioner(CaptionOptions.model_validate_json(options), device)


@lru_cache(maxsize=1)
def _similarity_judge(options: str, device: str) -> SimilarityJudge:
    return SimilarityJudge(CaptionOptions.model_validate_json(options), device)


class _Network:
    """A model with its way of preparing pictures, on its device."""

    def __init__(self, folder: Path, kind: str, options: CaptionOptions, device: str) -> None:
        import torch
        import transformers

        from timeloom.device import choose_device
        from timeloom.model_files import first_line, quiet_libraries

        self.device = choose_device(device)
        on_cpu = self.device.type == "cpu"
        bf16 = options.precision == "bf16" or (options.precision == "auto" and not on_cpu)
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        self.batch_size = options.batch_size or (ON_CPU if on_cpu else ON_ACCELERATOR)
        self.folder = folder
        try:
            with quiet_libraries():
                self.processor = _processor(folder)
                model = getattr(transformers, kind).from_pretrained(folder, local_files_only=True, dtype=self.dtype)
        except Exception as error:  # transformers has an error for everything
            raise TimeloomError(f"the model folder {folder} cannot be loaded: {first_line(error)}.") from error
        self.model = model.eval().requires_grad_(False).to(self.device)

    def _full(self, items: Sequence[Any]) -> list[Any]:
        """The items, filled up to a whole batch."""
        if not 0 < len(items) <= self.batch_size:
            raise ValueError(f"{len(items)} items do not fit into a batch of {self.batch_size}")
        return [*items, *[items[-1]] * (self.batch_size - len(items))]

    def _to_device(self, inputs: Any) -> dict[str, Any]:
        return {
            name: value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)
            for name, value in inputs.items()
        }


class Captioner(_Network):
    """Tells what a picture shows: BLIP-2, BLIP, GIT, a vision-encoder-decoder, ...

    Raises: TimeloomError where the model is not here or cannot be loaded.
    """

    def __init__(self, options: CaptionOptions, device: str) -> None:
        assert options.model is not None
        super().__init__(find_model(options.model), "AutoModelForImageTextToText", options, device)
        self.prompt, self.max_tokens = options.prompt, options.max_tokens

    def captions(self, pictures: Sequence[bytes]) -> list[str]:
        """A caption of each JPEG, at most a batch of them, in their order."""
        import torch

        images = [_opened(picture) for picture in self._full(pictures)]
        texts = {"text": [self.prompt] * len(images), "padding": True} if self.prompt else {}
        inputs = self._to_device(self.processor(images=images, return_tensors="pt", **texts))
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False, num_beams=1)
        given = inputs.get("input_ids")
        if given is not None and torch.equal(tokens[:, : given.shape[1]], given):
            tokens = tokens[:, given.shape[1] :]  # decoders repeat what they were given
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [self._cleaned(text) for text in texts[: len(pictures)]]

    def _cleaned(self, text: str) -> str:
        text = " ".join(text.split())
        prompt = " ".join((self.prompt or "").split())
        return text[len(prompt) :].strip() if prompt and text.lower().startswith(prompt.lower()) else text


class SimilarityJudge(_Network):
    """A CLIP: how well a text fits a picture, as the cosine of their embeddings, -1 to 1.

    Raises: TimeloomError where the model is not here or cannot be loaded.
    """

    def __init__(self, options: CaptionOptions, device: str) -> None:
        assert options.similarity is not None
        super().__init__(find_model(options.similarity), "AutoModel", options, device)

    def similarities(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        """The cosine of each JPEG and its text, at most a batch of them, in their order."""
        import torch

        length = self.model.config.text_config.max_position_embeddings
        inputs = self.processor(
            images=[_opened(picture) for picture in self._full(pictures)],
            text=self._full(texts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found = self.model(**self._to_device(inputs))
        images, words = (
            torch.nn.functional.normalize(rows.float()) for rows in (found.image_embeds, found.text_embeds)
        )
        values = (images * words).sum(dim=1).cpu()[: len(pictures)]
        if not values.isfinite().all():
            raise TimeloomError(f"{self.folder} gives similarities that are not finite; try captions.precision: fp32.")
        return [round(value, 6) for value in values.tolist()]


def _processor(folder: Path) -> Any:
    """How pictures and texts are prepared. A vision-encoder-decoder has its two halves apart."""
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type == "vision-encoder-decoder":
        images = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        return _Halves(images, AutoTokenizer.from_pretrained(folder, local_files_only=True))
    return AutoProcessor.from_pretrained(folder, local_files_only=True)


class _Halves:
    """An image processor and a tokenizer as one processor. Prompts are not for such models."""

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self._images, self.batch_decode = images, tokenizer.batch_decode

    def __call__(self, images: list[Any], return_tensors: str, **texts: Any) -> Any:
        if texts:
            raise TimeloomError("captions.prompt is not for a vision-encoder-decoder; leave it out.")
        return self._images(images, return_tensors=return_tensors)


def _opened(picture: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(picture)).convert("RGB")
