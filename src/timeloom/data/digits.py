"""*digits*: the built-in data set. Real handwriting (scikit-learn's scans) moving in colour over backgrounds.

Nothing is stored: a clip is a function of (seed, index). Captions are sentences, ground truth is exact, and 10 % of the
combinations of digit, colour, background and motion are never shown in training, so that composing them can be tested.

Axes: B clips, F frames, H height, W width.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from timeloom.data.clip import Clip, Frames, Ledger, Outline, Window
from timeloom.data.digits_captions import BACKGROUND_WORDS, COLOUR_WORDS, MOTION_WORDS, describe
from timeloom.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validation", "test"]
Combinations = Literal["seen", "unseen", "all"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "orange": (245, 135, 20),
    "yellow": (240, 222, 40),
    "green": (40, 170, 60),
    "cyan": (40, 205, 215),
    "blue": (40, 75, 230),
    "purple": (135, 45, 205),
    "pink": (245, 90, 185),
}
"""RGB of each colour; clips vary it a little. Backgrounds have no hue, so that colour is the digit's alone."""
BACKGROUNDS = tuple(BACKGROUND_WORDS)
MOTIONS = tuple(MOTION_WORDS)
DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up left": (-1, -1),
    "up right": (1, -1),
    "down left": (-1, 1),
    "down right": (1, 1),
}
"""(x, y) of each travelling motion, y pointing down."""
ATTRIBUTES = ("digit", "colour", "background", "motion")

FPS = 8.0
DURATION_S = 2.0
SIDE = 64
"""Pixels of a frame's side at which sizes below are given; other sizes scale with the shorter side."""
SCAN_SIDE = 50
"""Pixels of an enlarged scan's side, its empty margin of a tenth on each side included."""

_SPLIT_SHARES: dict[Split, tuple[float, float]] = {"train": (0.0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}
_SPLIT_SALT: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
_PARTITION_SEED = 20230417  # of scans and combinations; a constant, so that "never trained on" holds for every seed
UNSEEN_SHARE = 0.10


@dataclass(frozen=True)
class Scene:
    """Ground truth of one clip. Lengths in pixels of a 64-pixel side, from the frame's centre; angles in radians."""

    digit: int
    colour: str
    background: str
    motion: str
    scan: int
    """Which handwriting sample, an index into scikit-learn's 1,797."""
    rgb: tuple[float, float, float]
    """The digit's colour in [0, 255]."""
    shade: float
    """In [-1, 1]: how much lighter or darker than usual the background is."""
    centre: tuple[float, float]
    """(x, y) of the middle of the path."""
    size: float
    """Side of the scan's box when it neither grows nor shrinks."""
    travel: float
    """Length of a travelling path, height of a bounce, change of size."""

    @property
    def attributes(self) -> dict[str, str]:
        return {
            "digit": str(self.digit),
            "colour": self.colour,
            "background": self.background,
            "motion": self.motion,
        }

    def pose(self, phase: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4, …): x, y, size and clockwise angle at `phase`, 0 at the first frame of a clip and 1 at the last of 16."""
        x, y = np.full_like(phase, self.centre[0]), np.full_like(phase, self.centre[1])
        size, angle = np.full_like(phase, self.size), np.zeros_like(phase)
        if self.motion in DIRECTIONS:
            dx, dy = DIRECTIONS[self.motion]
            step = self.travel * (0.8 if dx and dy else 1.0) * (phase - 0.5)
            x, y = x + dx * step, y + dy * step
        elif self.motion == "bounce":  # from the top, twice onto the floor
            y = y + self.travel * (0.5 - np.abs(np.cos(2 * np.pi * phase)))
        elif self.motion in ("grow", "shrink"):
            size = size + self.travel * (phase - 0.5) * (1 if self.motion == "grow" else -1)
        elif self.motion == "spin":
            angle = 2 * np.pi * phase
        return np.stack([x, y, size, angle])


@functools.lru_cache(maxsize=1)
def scans() -> tuple[Tensor, NDArray[np.int64]]:
    """scikit-learn's 1,797 scans, smoothly enlarged: coverage (1797, 50, 50) in [0, 1], and their digits."""
    inks, digits = _inks()
    return _enlarged(inks, 1), digits


@functools.lru_cache(maxsize=1)
def _inks() -> tuple[Tensor, NDArray[np.int64]]:
    """The scans as they are, with an empty pixel around: (1797, 10, 10) in [0, 1], and their digits."""
    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return F.pad(torch.tensor(bunch.images, dtype=torch.float32) / 16, (1, 1, 1, 1)), bunch.target


def _enlarged(inks: Tensor, times: int) -> Tensor:
    """(N, 10, 10) scans, smoothly enlarged to `times` SCAN_SIDE, their rim as narrow in the larger pixels."""
    import torch.nn.functional as F

    side = times * SCAN_SIDE
    large = F.interpolate(inks[:, None], size=(side, side), mode="bicubic", align_corners=False)[:, 0]
    low, high = 0.525 - 0.175 / times, 0.35 / times
    edge = ((large - low) / high).clamp(0, 1)  # ink with a soft rim
    return edge * edge * (3 - 2 * edge)


def _glyph(scan: int, height: int, width: int) -> Tensor:
    """How a scan covers its box, (side, side) in [0, 1]; frames larger than SIDE get finer ones, not larger pixels."""
    times = ceil(min(height, width) / SIDE)
    return scans()[0][scan] if times <= 1 else _enlarged(_inks()[0][scan : scan + 1], times)[0]


@functools.lru_cache(maxsize=3)
def scans_of(split: Split) -> tuple[NDArray[np.int64], ...]:
    """For each digit, the scans of this split; splits share no scan."""
    digits = scans()[1]
    low, high = _SPLIT_SHARES[split]
    order = np.random.default_rng(_PARTITION_SEED).permutation(len(digits))
    by_digit = [order[digits[order] == digit] for digit in range(10)]
    return tuple(own[round(low * len(own)) : round(high * len(own))] for own in by_digit)


@functools.lru_cache(maxsize=16)
def combinations_of(
    which: Combinations, colours: tuple[str, ...] = (), backgrounds: tuple[str, ...] = ()
) -> tuple[tuple[int, str, str, str], ...]:
    """The (digit, colour, background, motion) combinations that training shows, never shows, or both.

    A style has these `colours` and these `backgrounds` alone, or all where none is named. What is never shown is the
    same in every style.

    Raises:
        TimeloomError: a colour or background that *digits* does not have.
    """
    for kind, named, known in (("colour", colours, COLOURS), ("background", backgrounds, BACKGROUNDS)):
        for name in named:
            if name not in known:
                raise unknown_name(kind, name, known)
    every = list(itertools.product(range(10), COLOUR_WORDS, BACKGROUND_WORDS, MOTION_WORDS))
    if which != "all":
        order = np.random.default_rng(_PARTITION_SEED).permutation(len(every))
        unseen = round(UNSEEN_SHARE * len(every))
        every = [every[i] for i in (order[:unseen] if which == "unseen" else order[unseen:])]
    return tuple(one for one in every if one[1] in (colours or COLOURS) and one[2] in (backgrounds or BACKGROUNDS))


class DigitsSource:
    """A clip source that draws its clips. Item i is a function of (seed, split, i) and of the style alone.

    Args:
        split: which handwriting is used.
        seed: another seed, other clips.
        num_clips: how many there are; more cost nothing.
        combinations: "seen" in training, "unseen" never in training, or "all".
        complete_captions: every caption names all four attributes (for judging).
        colours: a style: digits in these colours alone; all where none is named.
        backgrounds: the same for backgrounds.

    Raises:
        TimeloomError: a colour or background that there is not.
    """

    def __init__(
        self,
        split: Split = "train",
        seed: int = 0,
        num_clips: int = 1_000_000,
        combinations: Combinations = "seen",
        complete_captions: bool = False,
        colours: Sequence[str] = (),
        backgrounds: Sequence[str] = (),
    ) -> None:
        self.split: Split = split
        self.seed = seed
        self.complete_captions = complete_captions
        self.combinations = combinations_of(combinations, tuple(colours), tuple(backgrounds))
        self.name = "-".join(["digits", *colours, *backgrounds])
        self.ledger = Ledger(found=num_clips)

    def __len__(self) -> int:
        return self.ledger.found

    def __getitem__(self, index: int) -> Clip:
        scene, caption = self.scene(index)
        return Clip(
            key=f"{self.name}-{self.split}-{self.seed}-{index}",
            caption=caption,
            origin=f"digits/{self.split}",
            width=SIDE,
            height=SIDE,
            fps=FPS,
            duration_s=DURATION_S,
            draw=lambda window, start: render([scene], window, [start])[0],
            attributes=scene.attributes,
        )

    def outline(self) -> Outline:
        side = np.broadcast_to(np.int32(SIDE), len(self))
        return Outline(side, side, np.broadcast_to(np.False_, len(self)), np.arange(len(self)))

    def scene(self, index: int) -> tuple[Scene, str]:
        """Ground truth and caption of clip `index`.

        Raises:
            IndexError: outside 0 … len − 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, _SPLIT_SALT[self.split], index])
        digit, colour, background, motion = self.combinations[int(rng.integers(len(self.combinations)))]
        own = scans_of(self.split)[digit]
        u = rng.uniform(-1, 1, size=8)
        drift = 2.0 if motion in DIRECTIONS else 4.0
        red, green, blue = (float(np.clip(c + 12 * v, 0, 255)) for c, v in zip(COLOURS[colour], u[:3], strict=True))
        scene = Scene(
            digit,
            colour,
            background,
            motion,
            scan=int(own[int(rng.integers(len(own)))]),
            rgb=(red, green, blue),
            shade=float(u[3]),
            centre=(float(drift * u[4]), float(drift * u[5])),
            size=float(42 + 2 * u[6]),
            travel=float(26 + 3 * u[7]),
        )
        return scene, describe(digit, colour, background, motion, rng, self.complete_captions)

    def draw_batch(self, indices: Sequence[int], window: Window, starts: Sequence[float]) -> tuple[Frames, list[str]]:
        """Many clips at once, the fast way for training: frames (B, F, H, W, 3) and captions."""
        scenes, captions = zip(*(self.scene(index) for index in indices), strict=True)
        return render(scenes, window, starts), list(captions)


def render(scenes: Sequence[Scene], window: Window, starts: Sequence[float]) -> Frames:
    """Draw windows of scenes with sub-pixel precision.

    Args:
        scenes: B of them.
        window: frames, rate and size wanted; a window longer than the clip goes on along the same path.
        starts: for each scene where in [0, 1] of the clip's spare time the window begins.

    Returns:
        uint8 (B, F, H, W, 3).
    """
    import torch  # here, so that reading a video needs no torch

    frames, height, width = window.num_frames, window.height, window.width
    spare_s = max(0.0, DURATION_S - window.duration_s)
    seconds = np.arange(frames) / window.fps
    clips = torch.empty(len(scenes), frames, height, width, 3, dtype=torch.uint8)
    for clip, scene, start in zip(clips, scenes, starts, strict=True):  # one clip at a time stays in the cache
        cover = _cover(scene, (start * spare_s + seconds) / (DURATION_S - 1 / FPS), height, width)
        behind = draw_background(scene.background, scene.shade, height, width)
        for channel, value in enumerate(scene.rgb):
            clip[..., channel] = torch.lerp(behind, torch.tensor(float(value)), cover).round_()
    return clips.numpy()


def _cover(scene: Scene, phase: NDArray[np.float64], height: int, width: int) -> Tensor:
    """How much of each pixel the digit covers: (F, H, W) in [0, 1]."""
    import torch
    import torch.nn.functional as F

    x, y, size, angle = torch.from_numpy(scene.pose(phase).astype(np.float32))[:, :, None]  # (F, 1) each
    scale = SIDE / min(height, width)
    across = ((torch.arange(width) + 0.5 - width / 2) * scale - x) * 2 / size  # (F, W)
    down = ((torch.arange(height) + 0.5 - height / 2) * scale - y) * 2 / size  # (F, H)
    cos, sin = torch.cos(angle), torch.sin(angle)
    grid = torch.empty(len(phase), height, width, 2)  # each pixel's place in the scan's [-1, 1] box
    torch.add((cos * across)[:, None, :], (sin * down)[:, :, None], out=grid[..., 0])
    torch.add((-sin * across)[:, None, :], (cos * down)[:, :, None], out=grid[..., 1])
    glyph = _glyph(scene.scan, height, width).expand(len(phase), 1, -1, -1)
    return F.grid_sample(glyph, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]


def draw_background(background: str, shade: float, height: int, width: int) -> Tensor:
    """A background without hue: (H, W) in [0, 255]; `shade` in [-1, 1] makes it darker or lighter."""
    import torch

    plain = {"black": 14.0 + 10 * shade, "white": 240.0 + 12 * shade, "gray": 128.0 + 16 * shade}
    if background in plain:
        return torch.full((height, width), plain[background])
    rows, columns = (torch.arange(n, dtype=torch.float32) * SIDE / min(height, width) for n in (height, width))
    if background == "gradient":  # dark at the top, light at the bottom
        return (35.0 + 12 * shade + 180.0 * rows / SIDE)[:, None].expand(height, width)
    odd = (columns // 8) % 2
    tiles = odd.expand(height, width) if background == "stripes" else ((rows // 8)[:, None] + columns // 8) % 2
    return 80.0 + 14 * shade + 90.0 * tiles
