"""A window of a span of a video: where in the span it lies, and what is done where the span is too short for it."""

from __future__ import annotations

import hashlib
from math import ceil
from typing import Literal

import numpy as np

from timeloom.data.clip import Frames, Window
from timeloom.data.movie import Media, Packed
from timeloom.data.video import ROUNDING_S, probe_video, read_video
from timeloom.errors import TimeloomError

ShortClips = Literal["drop", "slow", "repeat_last", "loop"]
TOO_SHORT = "shorter than the window"


def last_s(window: Window) -> float:
    """When the window's last frame is shown, in seconds after its first; a span must be longer than that."""
    return (window.num_frames - 1) / window.fps


def window_start(key: str, epoch: int, windows: int) -> float:
    """Where in [0, 1] of its clip the window begins that is seen in an epoch, when `windows` of them take turns: by
    chance of the clip's key, each window in its own part of the clip. The same in every run, so that what was encoded
    once serves all."""
    turn = epoch % windows
    digest = hashlib.blake2b(f"{turn} {windows} {key}".encode(), digest_size=8).digest()
    return (turn + int.from_bytes(digest, "little") / 2**64) / windows


def draw_span(
    media: Media, start_s: float, end_s: float, short_clips: ShortClips, window: Window, start: float
) -> Frames:
    """A window of the video from `start_s` to `end_s`, NaN for its own end.

    `start` in [0, 1] places the window between the first and the last possible place. A span that ends before the
    window would is told by `short_clips`: "slow" spreads the window's frames evenly over the span, "repeat_last"
    repeats its last frame, "loop" begins again.

    Returns: uint8 (F, H, W, 3). Raises: TimeloomError for "drop", and as `read_video` does.
    """
    size = (window.height, window.width)
    if np.isnan(end_s):
        end_s = probe_video(media).duration_s
    length_s = end_s - start_s
    if last_s(window) < length_s:
        first_s = start_s + start * max(0.0, length_s - window.duration_s)
        return read_video(media, window.num_frames, window.fps, first_s, *size)
    if short_clips == "drop" or length_s <= 0:
        name = media.path if isinstance(media, Packed) else media
        raise TimeloomError(f"{name}: is {TOO_SHORT} ({max(0.0, length_s):.3f} s).")
    if short_clips == "slow":
        return read_video(media, window.num_frames, window.num_frames / length_s, start_s, *size)
    there = max(1, ceil((length_s - ROUNDING_S) * window.fps))  # frame i is shown at i / fps, before the end
    frames = read_video(media, there, window.fps, start_s, *size)
    places = np.arange(window.num_frames)
    return frames[np.minimum(places, there - 1) if short_clips == "repeat_last" else places % there]


def draw_still(media: Media, window: Window, start: float) -> Frames:
    """A picture as uint8 (F, H, W, 3): the same frame F times. `start` says nothing here."""
    frame = read_video(media, 1, None, 0.0, window.height, window.width)
    return frame.repeat(window.num_frames, axis=0)
