"""Scenes as files of their own, exact to the frame: packets copied where possible, the head encoded anew.

A virtual clip needs no file: it is (`scan.seconds(scene.start_pts)`, `scan.seconds(scene.end_pts)`) of the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from timeloom.curate.scene import Scan, Scene
from timeloom.schema import Schema


class CutOptions(Schema):
    """How scenes become files."""

    method: Literal["smart", "encode"] = "smart"
    """"smart" copies packets from the first keyframe on and encodes only the head (H.264; other codecs are encoded);
    "encode" encodes every frame."""
    crf: int = Field(16, ge=0, le=51)
    """x264's quality of what is encoded."""
    preset: str = "veryfast"
    """x264's preset."""
    threads: int = Field(1, ge=0)
    """Threads of decoder and encoder; 0 leaves it to FFmpeg."""


@dataclass(frozen=True)
class Cut:
    """A file that holds exactly one scene."""

    path: Path
    method: Literal["copy", "smart", "encode"]
    """How it was made: all packets copied, all but the head, or none."""
    num_frames: int
    encoded_frames: int
    """How many of them were encoded anew."""
    size: int
    """Bytes."""


def cut(path: Path, scan: Scan, wanted: Iterable[tuple[Scene, Path]], options: CutOptions) -> Iterator[Cut]:
    """Write scenes of the video `path` as mp4 files, in one pass, without sound; yields each as it is whole.

    `wanted` pairs each scene with its file, in the order of time. Files appear whole or not at all; existing ones are
    replaced. Rotation and pixel aspect are carried over; edit lists and start times are not: a file starts at 0.

    Raises: TimeloomError, naming the file, where the source or the target refuses, or a scene's frames are not those that
    the scan counted.
    """
    raise NotImplementedError
