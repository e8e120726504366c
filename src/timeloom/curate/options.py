"""How a video is scanned, once, as typed fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timeloom.schema import Schema

Detector = Literal["content", "adaptive", "pyscenedetect", "pyscenedetect-adaptive"]


class ClipOptions(Schema):
    """Clips at training size, encoded while the scan goes on."""

    short_side: int = Field(default=256, ge=16)
    """Pixels of the shorter side; the longer one follows the picture, both rounded to even. Never enlarged."""
    max_duration_s: float = Field(default=20.0, gt=0)
    """Longer scenes are not encoded."""
    min_duration_s: float = Field(default=0.0, ge=0)
    """Shorter scenes are not given."""
    crf: int = Field(default=18, ge=0, le=51)
    """x264's quality: 0 is lossless, 18 is visually so."""
    preset: str = "veryfast"
    """x264's preset."""


class ScanOptions(Schema):
    """How a video is scanned."""

    detector: Detector = "content"
    """What finds cuts. "content" and "adaptive" are PySceneDetect's ContentDetector and AdaptiveDetector, done quickly;
    "pyscenedetect" and "pyscenedetect-adaptive" are that package's own (extra `curate`), which take more time."""
    threshold: float = Field(default=27.0, gt=0)
    """Content: HSV difference, 0 to 255, from one frame to the next that makes a cut."""
    adaptive_threshold: float = Field(default=3.0, gt=0)
    """Adaptive: a cut's difference over the mean of its neighbours'."""
    adaptive_window: int = Field(default=2, ge=1)
    """Adaptive: neighbours on either side, in frames."""
    adaptive_min_difference: float = Field(default=15.0, ge=0)
    """Adaptive: HSV difference, 0 to 255, that a cut has at least."""
    min_scene_frames: int = Field(default=15, ge=0)
    """Cuts that follow each other faster than this many frames (at the average rate) are one."""
    width: int = Field(default=256, ge=32)
    """Pixels of the longer side at which frames are compared."""
    image_side: int = Field(default=640, ge=32)
    """Pixels of the longer side of a central frame at most."""
    image_quality: int = Field(default=90, ge=1, le=95)
    """JPEG quality of central frames."""
    threads: int = Field(default=1, ge=0)
    """Threads of the decoder; 0 leaves it to FFmpeg. 1 is best in a pool with a process for each core."""
    clips: ClipOptions | None = None
    """Encode clips at training size in the same pass, for `on_clip`."""
