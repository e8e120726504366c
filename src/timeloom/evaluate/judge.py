"""The judge of *digits*: says from the pixels alone what a clip shows.

    judge = Judge()
    verdicts = judge(clips)        # uint8 (B, F, H, W, 3)
    verdicts[0].attributes         # {"digit": "7", "colour": "red", "background": "black", "motion": "left"}

Colour and motion are measured (hue, path, size, turning), the background is compared with what the data set draws, the
digit is read by a small classifier. What is not there is None, and so is a digit or colour that is not the same in both
halves of the clip.

Axes: B clips, F frames, H height, W width.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from timeloom.data.clip import Frames
from timeloom.data.digits import ATTRIBUTES, BACKGROUNDS, COLOURS, FPS, draw_background
from timeloom.errors import TimeloomError
from timeloom.evaluate.digit_reader import digit_reader
from timeloom.evaluate.motion import name_motions, phases, turned
from timeloom.evaluate.segmentation import Segmentation, chroma, segment

MIN_VISIBLE = 0.5
"""Share of frames in which there must be a digit; with fewer, nothing is said of the clip."""
MAX_BACKGROUND_ERROR = 45.0
"""Mean gray levels away from every background of the data set: it is none of them."""
MIN_SCORE = -0.1
"""Mean score of the digit over the clip, some −1 … 1; with less it is a scrawl. Costs 3 of the 359 test scans."""
_SHADES = np.linspace(-1.5, 1.5, 13)
_CHUNK = 32  # clips judged at once, for memory


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; None is what cannot be told or changes half-way."""

    digit: str | None = None
    colour: str | None = None
    background: str | None = None
    motion: str | None = None
    steady: bool = False
    """Whether the digit reads the same in each quarter of the clip."""

    @property
    def attributes(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in ATTRIBUTES}


class Judge:
    """Measures clips. Its verdict on a clip does not depend on the others in the batch.

    Args:
        fps: frames per second of the clips to judge; the first frame is taken for the beginning of the motion.
        seed: of the views that the digit reader is fitted on.
    """

    def __init__(self, fps: float = FPS, seed: int = 0) -> None:
        self.fps = fps
        self._reader = digit_reader(seed)

    def __call__(self, clips: Frames) -> list[Verdict]:
        """Judge uint8 clips (B, F, H, W, 3) of at least 32 x 32 pixels.

        An image (F = 1) is judged as a clip that stands still; of its motion and steadiness nothing is said.

        Raises:
            TimeloomError: clips of another shape or type.
        """
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
            raise TimeloomError(f"The judge needs uint8 clips (B, F, H, W, 3), not {clips.dtype} {clips.shape}.")
        if clips.shape[1] < 1 or min(clips.shape[2:4]) < 32:
            raise TimeloomError(f"The judge needs frames of at least 32 x 32 pixels, not {clips.shape[1:4]}.")
        if clips.shape[1] == 1:
            verdicts = self(clips.repeat(2, axis=1))
            return [replace(verdict, motion=None, steady=False) for verdict in verdicts]
        chunks = (clips[i : i + _CHUNK] for i in range(0, len(clips), _CHUNK))
        return list(itertools.chain.from_iterable(self._judge(torch.from_numpy(chunk)) for chunk in chunks))

    def _judge(self, clips: Tensor) -> list[Verdict]:
        found = segment(clips)
        colours, backgrounds = name_colours(found), name_backgrounds(clips, found)
        motions, turns = name_motions(found, self.fps)
        digits = self._read_digits(found, turned(turns, phases(clips.shape[1], self.fps)))
        enough = found.visible.sum(dim=1) >= max(2, MIN_VISIBLE * clips.shape[1])
        return [
            Verdict(digit, colour, background, motion, steady) if seen else Verdict()
            for seen, (digit, steady), colour, background, motion in zip(
                enough.tolist(), digits, colours, backgrounds, motions, strict=True
            )
        ]

    def _read_digits(self, found: Segmentation, angle: Tensor) -> list[tuple[str | None, bool]]:
        """The digit of each clip, and whether it is steady."""
        scores = self._reader.scores(found, angle) * found.visible.numpy()[..., None]
        read = []
        for clip, visible in zip(scores, found.visible.numpy(), strict=True):
            total = clip.sum(axis=0)
            digit = int(total.argmax())
            constant = bool(total[digit] >= MIN_SCORE * visible.sum()) and _agree(clip, visible, 2, digit)
            read.append((str(digit) if constant else None, constant and _agree(clip, visible, 4, digit)))
        return read


def _agree(scores: NDArray[np.float64], visible: NDArray[np.bool_], parts: int, choice: int) -> bool:
    """Whether the highest of the summed scores (F, …) is `choice` in each part of the clip that shows anything."""
    splits = zip(np.array_split(scores, parts), np.array_split(visible, parts), strict=True)
    return all(int(part.sum(axis=0).argmax()) == choice for part, seen in splits if seen.any())


def name_colours(found: Segmentation) -> list[str | None]:
    """The colour whose hue is nearest, the same in both halves of the clip; blended edges have the digit's hue too."""
    named = chroma(torch.tensor(list(COLOURS.values()), dtype=torch.float32))
    likeness = found.chroma * found.visible[..., None] @ (named / named.norm(dim=-1, keepdim=True)).T  # (B, F, 8)
    choices = likeness.sum(dim=1).argmax(dim=1).tolist()
    return [
        list(COLOURS)[choice] if _agree(clip, visible, 2, choice) else None
        for clip, visible, choice in zip(likeness.numpy(), found.visible.numpy(), choices, strict=True)
    ]


def name_backgrounds(clips: Tensor, found: Segmentation) -> list[str | None]:
    """The background nearest to what lies around the digit: each pixel's median over the frames that leave it free."""
    gray = clips.float().mean(dim=-1)
    near = F.max_pool2d(found.mask.flatten(0, 1)[:, None], kernel_size=5, stride=1, padding=2)[:, 0]
    free = near.unflatten(0, gray.shape[:2]) < 0.05
    behind = gray.masked_fill(~free, float("nan")).nanmedian(dim=1).values.flatten(1)  # (B, H·W)
    known = ~behind.isnan()
    names, templates = _backgrounds(*gray.shape[2:])
    errors = torch.stack([((behind - template).abs() * known).nansum(dim=1) for template in templates], dim=1)
    errors = errors / known.sum(dim=1, keepdim=True).clamp(min=1)
    least, nearest = errors.min(dim=1)
    enough = known.float().mean(dim=1) > 0.2
    return [
        names[choice] if seen and error <= MAX_BACKGROUND_ERROR else None
        for choice, error, seen in zip(nearest.tolist(), least.tolist(), enough.tolist(), strict=True)
    ]


@functools.lru_cache(maxsize=4)
def _backgrounds(height: int, width: int) -> tuple[list[str], Tensor]:
    """The data set's backgrounds in several shades: their names, and (N, H·W) in [0, 255]."""
    pairs = list(itertools.product(BACKGROUNDS, _SHADES))
    drawn = [draw_background(name, float(shade), height, width).flatten() for name, shade in pairs]
    return [name for name, _ in pairs], torch.stack(drawn)
