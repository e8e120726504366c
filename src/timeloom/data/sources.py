"""From options to clips: which source, which part of it, and which window of each clip."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from timeloom.data.clip import Clip, ClipSource, Window
from timeloom.data.digits import DigitsSource
from timeloom.data.folder import FolderSource
from timeloom.errors import TimeloomError
from timeloom.schema import Schema


class DataOptions(Schema):
    """What a network sees. In recipes: `data`."""

    source: Literal["digits", "folder"] = "digits"
    path: str | None = None
    """Folder of clips, for `source: folder`."""
    captions: str | None = None
    """CSV or JSONL of captions; without it they are looked for in the folder and beside each clip."""
    num_frames: int = Field(default=16, ge=1, le=1024)
    """Frames of a training clip; 1 trains on images."""
    fps: float = Field(default=8.0, gt=0)
    """Frames a second at which a clip is sampled."""
    height: int = Field(default=64, ge=8, multiple_of=8)
    """Pixels."""
    width: int = Field(default=64, ge=8, multiple_of=8)
    """Pixels."""
    validation_clips: int = Field(default=32, ge=1)
    """Clips held out for the validation loss. *digits* has its own split; a folder gives these up."""

    @model_validator(mode="after")
    def _fits_together(self) -> DataOptions:
        if self.source == "folder" and not self.path:
            raise ValueError("data.path, the folder of clips, is needed for `source: folder`")
        return self

    @property
    def window(self) -> Window:
        """The frames that the network sees of a clip."""
        return Window(self.num_frames, self.fps, self.height, self.width)


class Part:
    """Some clips of a source, by index."""

    def __init__(self, source: ClipSource, indices: list[int]) -> None:
        self.source, self.indices, self.ledger = source, indices, source.ledger

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        return self.source[self.indices[index]]


def open_sources(data: DataOptions, seed: int) -> tuple[ClipSource, ClipSource]:
    """The training clips and the held-out ones, which have none in common.

    Raises:
        TimeloomError: too few clips to hold some out.
    """
    if data.source == "digits":
        return DigitsSource("train", seed), DigitsSource("validation", seed, num_clips=data.validation_clips)
    assert data.path is not None  # checked above
    source = FolderSource(Path(data.path).expanduser(), captions=data.captions, window=data.window)
    if len(source) <= data.validation_clips:
        raise TimeloomError(
            f"{data.path}: {source.ledger.summary()}; {data.validation_clips} are to be held out, so none is left to "
            "train on. Add clips or lower data.validation_clips."
        )
    order = np.random.default_rng(seed).permutation(len(source)).tolist()
    held_out, training = sorted(order[: data.validation_clips]), sorted(order[data.validation_clips :])
    return Part(source, training), Part(source, held_out)
