"""Pictures, still and moving (PNG, JPEG, GIF, WebP), through Pillow.

FFmpeg's own GIF reader changes short delays and it hardly reads animated WebP, so these stay with Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from math import ceil, floor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from timeloom.data.clip import Frames
from timeloom.data.movie import Size, TimedFrame, VideoInfo, centre_crop, covering
from timeloom.errors import TimeloomError

STILL_MS = 1000
DELAY_WHERE_NONE_MS = 100  # what browsers do with a delay of 0
IMAGE_DESCRIPTION = 0x010E  # the EXIF tag that holds Timeloom's metadata in WebP
# All that Pillow raises for damaged files.
DAMAGE = (OSError, SyntaxError, EOFError, ValueError, IndexError, Image.DecompressionBombError)


def is_picture(head: bytes) -> bool:
    """Whether a file whose first 12 bytes are `head` is a PNG, JPEG, GIF or WebP; names can lie."""
    return head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


class AnimationMovie:
    """A picture file as a film; a still is one frame of one second. Transparent parts are black.

    `content` is the file's, where it does not lie at `path`.

    Raises `TimeloomError` for damaged files.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path, self.first_s = path, Fraction(0)
        try:
            self._image = Image.open(path if content is None else io.BytesIO(content))
        except DAMAGE as error:
            raise TimeloomError(f"{path}: is not a picture that can be opened ({error}).") from error
        try:
            self.num_frames = getattr(self._image, "n_frames", 1)
            self.tick_s = Fraction(1, 100 if self._image.format == "GIF" else 1000)
            self._delays_s = [self._delay(i) for i in range(self.num_frames)]
            upright = ImageOps.exif_transpose(self._image)
            self._displayed = (upright.height, upright.width)
        except DAMAGE as error:
            self.close()
            raise TimeloomError(f"{path}: is damaged or cut short ({error}).") from error
        self.interval_s = 1 / _simplest_rate(self.num_frames, sum(self._delays_s, Fraction(0)), self.tick_s)

    def close(self) -> None:
        self._image.close()

    def tags(self) -> dict[str, str]:
        """PNG texts, the GIF comment, or EXIF's image description; whatever the file has."""
        found: dict[str, str] = {}
        for key, value in self._image.info.items():
            if isinstance(value, bytes) and key == "comment":
                found[key] = value.decode("utf-8", "replace")
            elif isinstance(value, str):
                found[str(key)] = value
        description = self._image.getexif().get(IMAGE_DESCRIPTION)
        if description:
            found["comment"] = str(description)
        return found

    def probe(self) -> VideoInfo:
        height, width = self._displayed
        duration_s = float(sum(self._delays_s))
        codec = (self._image.format or "picture").lower()
        return VideoInfo(width, height, float(1 / self.interval_s), duration_s, self.num_frames, codec)

    def frames(self, start_s: float) -> Iterator[TimedFrame]:
        time = Fraction(0)
        for index, delay in enumerate(self._delays_s):
            if time + delay > start_s - self.tick_s:
                yield TimedFrame(float(time), float(delay), partial(self._draw, index))
            time += delay

    def _delay(self, index: int) -> Fraction:
        self._image.seek(index)
        self._image.load()  # WebP knows a frame's delay only once it is decoded
        where_none = STILL_MS if self.num_frames == 1 else DELAY_WHERE_NONE_MS
        return Fraction(round(self._image.info.get("duration") or where_none), 1000)

    def _draw(self, index: int, size: Size | None) -> Frames:
        target = size or self._displayed
        try:
            self._image.seek(index)
            upright = ImageOps.exif_transpose(self._image).convert("RGBA")
        except DAMAGE as error:
            raise TimeloomError(f"{self.path}: frame {index} is damaged ({error}).") from error
        image = Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright).convert("RGB")
        height, width = covering(self._displayed, target)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return centre_crop(np.asarray(image), target)


def _simplest_rate(num_frames: int, duration_s: Fraction, tick_s: Fraction) -> Fraction:
    """The simplest rate whose duration, rounded to the file's clock, is `duration_s`: 8 for 16 frames in 2.00 s."""
    low = num_frames / (duration_s + tick_s / 2)
    high = num_frames / max(duration_s - tick_s / 2, tick_s / 2)
    for denominator in range(1, 1002):
        candidates = range(ceil(low * denominator), floor(high * denominator) + 1)
        if candidates:
            nearest = min(candidates, key=lambda n: abs(n / denominator - num_frames / duration_s))
            return Fraction(nearest, denominator)
    return num_frames / duration_s
