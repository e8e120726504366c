"""What raters see: every video decoded and encoded again in one way, so that only its pictures can tell who made it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from timeloom.data.clip import Frames
from timeloom.data.movie import VideoInfo
from timeloom.data.video import probe_video, read_video
from timeloom.data.write import write_video
from timeloom.errors import TimeloomError

LONGEST_S = 10.0
LARGEST_SIDE = 1024
FASTEST_FPS = 60
SAME_SHAPE = 0.04
"""Two shapes that differ by less are taken for one and filled; bars of a pixel or two would give a system away."""
BLOCKS = 8
"""Blocks along a side of a destroyed clip."""
DATE = 946684800
"""2000-01-01: all files have this time, as the order in which they were written would tell which system is which."""


@dataclass(frozen=True)
class Format:
    """The size, rate and length that all videos of one prompt get."""

    width: int
    height: int
    fps: float
    num_frames: int


def common_format(paths: Sequence[Path]) -> Format:
    """The largest height and width, a rate that all rates divide, the shortest length.

    Lengths are cut to LONGEST_S, sides to LARGEST_SIDE, the rate to FASTEST_FPS.

    Raises:
        TimeloomError: a file is missing, empty or cannot be played; all such are named.
    """
    infos, broken = [], []
    for path in paths:
        try:
            infos.append(_played(path))
        except TimeloomError as error:
            broken.append(str(error).rstrip("."))
    if broken:
        raise TimeloomError("; ".join(broken) + ".")
    height, width = max(info.height for info in infos), max(info.width for info in infos)
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    fps = _common_rate([info.fps for info in infos])
    duration_s = min(LONGEST_S, *(info.duration_s for info in infos))
    return Format(_even(width * scale), _even(height * scale), fps, max(1, math.floor(duration_s * fps + 1e-3)))


def _played(path: Path) -> VideoInfo:
    info = probe_video(path)
    if not (info.duration_s > 0 and info.fps > 0):
        raise TimeloomError(f"{path}: has no length.")
    return info


def _common_rate(rates: Sequence[float]) -> float:
    fractions = [Fraction(rate).limit_denominator(1001) for rate in rates]
    if all(rate.denominator == 1 for rate in fractions):
        common = math.lcm(*(rate.numerator for rate in fractions))
        if common <= FASTEST_FPS:
            return float(common)
    return min(float(FASTEST_FPS), max(rates))


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def read_clip(path: Path, shape: Format) -> Frames:
    """The video as uint8 (F, H, W, 3) in the format `shape`: fitted in whole, black where another shape leaves room."""
    frames = read_video(path, num_frames=shape.num_frames, fps=shape.fps)
    return np.stack([_fit(frame, shape.height, shape.width) for frame in frames])


def _fit(frame: Frames, height: int, width: int) -> Frames:
    scale = min(height / frame.shape[0], width / frame.shape[1])
    inner = [round(frame.shape[0] * scale), round(frame.shape[1] * scale)]
    if inner[0] >= height * (1 - SAME_SHAPE) and inner[1] >= width * (1 - SAME_SHAPE):
        inner = [height, width]
    if frame.shape[:2] != tuple(inner):
        frame = np.asarray(Image.fromarray(frame).resize((inner[1], inner[0]), Image.Resampling.BICUBIC))
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = frame
    return canvas


def destroy(frames: Frames, seed: int) -> Frames:
    """The clip as coarse, pale blocks in a random order of frames: worse than any clip in every respect."""
    random = np.random.default_rng(seed)
    height, width = frames.shape[1:3]
    small = [
        Image.fromarray(frame).resize((BLOCKS, BLOCKS), Image.Resampling.BOX) for frame in random.permutation(frames)
    ]
    coarse = np.stack([np.asarray(image.resize((width, height), Image.Resampling.NEAREST)) for image in small])
    noise = random.normal(0, 24, coarse.shape)
    return np.clip(128 + 0.4 * (coarse.astype(np.float64) - 128) + noise, 0, 255).astype(np.uint8)


def store_clip(frames: Frames, fps: float, folder: Path) -> str:
    """Write the clip, and return the name that browsers ask for: a hash of its content, which tells no system."""
    unnamed = folder / "unnamed.mp4"
    write_video(unnamed, frames, fps=fps, overwrite=True)
    name = hash_clip(unnamed)
    os.utime(unnamed, (DATE, DATE))
    unnamed.rename(folder / f"{name}.mp4")
    return name


def hash_clip(path: Path) -> str:
    """32 hexadecimal digits of the SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]
