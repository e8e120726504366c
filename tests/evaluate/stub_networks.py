"""Networks that need no weights, in the places of real ones: what they see is easy to know."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from timeloom.evaluate.networks.extractor import Classifier, Source

SOURCE = Source(Path("stub.pt"), "5" * 64)
WORDS = ("red", "green", "blue")


class StubClips(Classifier):
    """12 features a clip: the mean colour of each of four quarters of its frames."""

    name: ClassVar[str] = "i3d"
    takes = "clips"
    dimension: ClassVar[int] = 12
    num_classes: ClassVar[int] = 12
    side: ClassVar[int] = 1
    min_frames: ClassVar[int] = 9
    resize = "none"

    def _prepare(self, items):
        return items.float() / 255

    def _features(self, prepared):
        quarters = torch.stack([part.mean(dim=(1, 2, 3)) for part in prepared.chunk(4, dim=1)], dim=1)
        return quarters.flatten(1)

    def _logits(self, prepared):
        return 9 * self._features(prepared)


class StubFrames(StubClips):
    """Mean colour of each frame; a text's features are the colours that it names."""

    name: ClassVar[str] = "clip"
    takes = "frames"
    dimension: ClassVar[int] = 3
    min_frames: ClassVar[int] = 1

    def _features(self, prepared):
        return prepared.mean(dim=(1, 2))

    def text_features(self, texts):
        return np.array([[0.01 + (word in text) for word in WORDS] for text in texts], dtype=np.float32)


def load_i3d(resize="squash", **options):
    extractor = StubClips(nn.Identity(), SOURCE, **options)
    extractor.resize = resize
    return extractor


def load_clip(**options):
    return StubFrames(nn.Identity(), SOURCE, **options)
