"""What the writers of metadata are told of a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor

ROUNDING = 1e-6


@dataclass(frozen=True)
class ListedClip:
    """A span of a video with its caption. Clips of one video follow each other."""

    key: str
    """Its name, without dots."""
    video: str
    """File of the video, below the folder of the videos."""
    start_s: float
    """Seconds after the video's first frame."""
    end_s: float
    """The first moment that is not the clip's."""
    fps: float
    caption: str
    label: str = ""
    file: str | None = None
    """Where the clip is a file of its own: its path below the data set's folder."""
    similarity: float | None = None
    """Of caption and picture."""


def by_video(clips: Iterable[ListedClip]) -> Iterator[tuple[str, list[ListedClip]]]:
    """(video without its suffix, its clips)."""
    for video, group in groupby(clips, key=lambda clip: clip.video):
        yield video.rpartition(".")[0] or video, list(group)


def clock_span(clip: ListedClip) -> list[str]:
    """The span as ["HH:MM:SS.mmm", "HH:MM:SS.mmm"], rounded inwards: a frame too few, never one of the next scene."""
    return [clock(ceil(clip.start_s * 1000 - ROUNDING)), clock(floor(clip.end_s * 1000 + ROUNDING))]


def clock(milliseconds: int) -> str:
    """A time as HH:MM:SS.mmm."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
