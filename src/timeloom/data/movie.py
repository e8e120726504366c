"""What an opened video offers, whichever library decodes it, and the geometry of fitting it into a frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from timeloom.data.clip import Frames

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Packed:
    """A video or picture that lies within another file, such as a shard."""

    path: Path
    """The shard's path and its own, for messages."""
    content: bytes


Media = str | os.PathLike[str] | Packed


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, as a viewer sees it: turned upright and with square pixels."""

    width: int
    """Displayed width in pixels."""
    height: int
    """Displayed height in pixels."""
    fps: float
    """Frames per second; the average where the rate varies."""
    duration_s: float
    """Seconds from the first frame's start to the last frame's end, whatever the sound does."""
    num_frames: int | None
    """Frames that a full read gives, or None where only decoding could tell."""
    codec: str
    """FFmpeg's name of the codec ("h264"), or the image format ("gif")."""


@dataclass(frozen=True)
class TimedFrame:
    """One frame and when it is shown."""

    time_s: float
    """Start of presentation, in seconds after the video's first frame."""
    duration_s: float
    draw: Callable[[Size | None], Frames]
    """draw(size) -> uint8 (H, W, 3), fitted into `size` (see `covering`), or as displayed where that is None."""


class Movie(Protocol):
    """An opened video, for one question: probe, frames or tags. Its user closes it."""

    interval_s: Fraction
    """Average time from one frame to the next."""
    tick_s: Fraction
    """Resolution of the file's clock."""
    first_s: Fraction
    """When the first frame is shown, on the file's clock."""

    def probe(self) -> VideoInfo: ...

    def frames(self, start_s: float) -> Iterator[TimedFrame]:
        """Frames in the order of presentation, from the one shown at `start_s` or an earlier one."""
        ...

    def tags(self) -> dict[str, str]: ...

    def close(self) -> None: ...


def covering(displayed: Size, target: Size) -> Size:
    """The smallest size of `displayed`'s shape that covers `target`: the short side fits, the long one overhangs."""
    scale = max(Fraction(target[0], displayed[0]), Fraction(target[1], displayed[1]))
    return max(target[0], round(displayed[0] * scale)), max(target[1], round(displayed[1] * scale))


def centre_crop(image: Frames, size: Size) -> Frames:
    """The middle of an (H, W, 3) image, (height, width, 3)."""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
