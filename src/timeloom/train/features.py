"""Train the small network that metrics of *digits* look through (see evaluate/networks/digits.py).

It tells the attributes of clips that have ground truth; and it tells apart captions and clips by a symmetric
cross-entropy over their similarities (CLIP, arXiv 2103.00020, Fig. 3), the text encoder being frozen. Some clips are
seen as single frames, so that images can be measured too; an image has no motion.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from timeloom.data.digits import CLASSES
from timeloom.errors import TimeloomError
from timeloom.model_files import hash_text_encoder
from timeloom.models.video_classifier import Reading, VideoClassifier
from timeloom.train.components import load_text_encoder
from timeloom.train.diffusion import seen_as_images
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom, Task
from timeloom.zoo import resolve

UNKNOWN = -100
"""A class that cross_entropy leaves out."""
ON_PREVIEW = 32
TILT, SLANT, STRETCH = 0.2, 0.2, 0.15
"""Radians, share of the height, and logarithm of a side: at most so much is a training clip distorted."""


class ClipsAndCaptions(nn.Module):
    """The classifier and the temperature of its similarities, all that learns."""

    def __init__(self, classifier: VideoClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.log_temperature = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), CLIP Sec. 2.5

    def forward(self, videos_BFCHW: Tensor, text_BLD: Tensor | None) -> tuple[Reading, Tensor | None]:
        """What is read, and (B, B) scaled similarities, captions down and clips across, where there are captions."""
        reading = self.classifier(videos_BFCHW)
        if text_BLD is None:
            return reading, None
        similarities = self.classifier.embed_text(text_BLD).float() @ reading.embedding.float().T
        return reading, similarities * self.log_temperature.clamp(max=4.6052).exp()  # at most 100, CLIP Sec. 2.5


class FeaturesTask(Task):
    """`model.features` are options of `VideoClassifier`; `model.text_encoder` is a trained one, and stays as it is."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self.text_encoder, self.tokenizer = load_text_encoder(recipe.model.text_encoder, device)
        self.text_encoder.requires_grad_(False).eval()
        self.config = {
            **recipe.model.features,
            "classes": CLASSES,
            "text_width": self.text_encoder.config.hidden_size,
        }
        try:
            self.classifier = VideoClassifier(**self.config).to(device)
        except (TypeError, ValueError) as error:
            raise TimeloomError(f"model.features: {error}") from error
        self.network = ClipsAndCaptions(self.classifier).to(device)

    def frozen(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.text_encoder}

    @torch.no_grad()
    def _text(self, captions: list[str]) -> Tensor:
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.device))[0].float()

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        still = [seen_as_images(number, self.recipe.loss.image_share) for number in random.numbers]
        videos = distort(batch.pixels(self.device), random)
        moving = [place for place, image in enumerate(still) if not image]
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        if moving:
            captions = [batch.captions[place] for place in moving]
            reading, similarities = self.network(videos[moving], self._text(captions))
            assert similarities is not None
            wanted = self._targets(batch, moving)
            own = torch.arange(len(moving), device=self.device)
            contrast = (F.cross_entropy(similarities, own) + F.cross_entropy(similarities.T, own)) / 2
            naming = classification(reading.logits, wanted)
            losses += [contrast, naming]
            metrics |= {"contrast": contrast.detach(), "naming": naming.detach(), **accuracies(reading.logits, wanted)}
        if images := [place for place, image in enumerate(still) if image]:  # each frame of these on its own
            frames = videos.shape[1]
            reading, _ = self.network(videos[images].flatten(0, 1)[:, None], None)
            wanted = {name: rows.repeat_interleave(frames) for name, rows in self._targets(batch, images).items()}
            wanted["motion"] = torch.full_like(wanted["motion"], UNKNOWN)
            naming = classification(reading.logits, wanted)
            losses.append(naming * len(images) / len(still))
            metrics |= {"naming_images": naming.detach()}
        return torch.stack(losses).sum(), metrics

    def _targets(self, batch: Batch, places: list[int]) -> dict[str, Tensor]:
        """{attribute: (B,) classes}, UNKNOWN where the clip does not tell."""
        chosen = [batch.examples[place].attributes for place in places]
        return {
            name: torch.tensor(
                [values.index(told[name]) if told.get(name) in values else UNKNOWN for told in chosen],
                device=self.device,
            )
            for name, values in CLASSES.items()
        }

    @torch.no_grad()
    def validate(self, batch: Batch, random: SampleRandom) -> dict[str, float]:
        """Loss and shares right of clips, and of their middle frames as images."""
        everything = list(range(len(batch.examples)))
        wanted = self._targets(batch, everything)
        videos = batch.pixels(self.device)
        reading, similarities = self.network(videos, self._text(batch.captions))
        own = torch.arange(len(videos), device=self.device)
        contrast = (F.cross_entropy(similarities, own) + F.cross_entropy(similarities.T, own)) / 2
        naming = classification(reading.logits, wanted)
        images, _ = self.network(videos[:, videos.shape[1] // 2, None], None)
        still = {name: value for name, value in accuracies(images.logits, wanted).items() if name != "motion"}
        numbers = {
            "loss": contrast + naming,
            "contrast": contrast,
            "naming": naming,
            "matched": (similarities.argmax(dim=1) == own).float().mean(),
            **accuracies(reading.logits, wanted),
            **{f"image_{name}": value for name, value in still.items()},
        }
        return {name: float(value) for name, value in numbers.items()}

    @torch.no_grad()
    def preview(self, batch: Batch) -> np.ndarray:
        """Probabilities of each clip (across) for each caption (down): a bright diagonal is right."""
        some = batch.part(0, ON_PREVIEW)
        _, similarities = self.network(some.pixels(self.device), self._text(some.captions))
        grey = (similarities.softmax(dim=1) * 255).round().to(torch.uint8)
        grey = grey.repeat_interleave(12, 0).repeat_interleave(12, 1)
        return grey[..., None].expand(-1, -1, 3).cpu().numpy()

    def save(self, folder: Path) -> None:
        """`config.json` and `model.safetensors`; the text encoder is named, not copied."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.classifier.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        source = str(self.recipe.model.text_encoder)
        text_encoder = {"text_encoder": source, "text_encoder_sha256": hash_text_encoder(resolve(source))}
        config = {**self.config, **text_encoder}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def distort(videos_BFCHW: Tensor, random: SampleRandom) -> Tensor:
    """Each clip tilted, stretched and slanted a little, all its frames alike, so that few hands stand for many."""
    tilt, slant, across, down = (2 * random.uniform((4,)) - 1).to(videos_BFCHW.device).T
    cos, sin = torch.cos(TILT * tilt), torch.sin(TILT * tilt)
    wide, high = torch.exp(STRETCH * across), torch.exp(STRETCH * down)
    rows = [wide * cos, wide * (SLANT * slant * cos - sin), high * sin, high * (SLANT * slant * sin + cos)]
    turn = torch.stack(rows, dim=1).unflatten(1, (2, 2))
    places = torch.cat([turn, torch.zeros_like(turn[..., :1])], dim=2)
    frames = videos_BFCHW.flatten(0, 1)
    grid = F.affine_grid(
        places.repeat_interleave(videos_BFCHW.shape[1], dim=0), list(frames.shape), align_corners=False
    )
    moved = F.grid_sample(frames, grid, padding_mode="reflection", align_corners=False)
    return moved.unflatten(0, videos_BFCHW.shape[:2])


def classification(logits: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Cross-entropy in nats, a sum over attributes, of each a mean over the clips whose class is known."""
    losses = [
        F.cross_entropy(logits[name].float(), classes, ignore_index=UNKNOWN, reduction="sum")
        / (classes != UNKNOWN).sum().clamp(min=1)
        for name, classes in wanted.items()
    ]
    return torch.stack(losses).sum()


def accuracies(logits: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """{attribute: share right} of the clips whose class is known."""
    return {
        name: (logits[name].argmax(dim=1) == classes).sum() / (classes != UNKNOWN).sum().clamp(min=1)
        for name, classes in wanted.items()
    }
