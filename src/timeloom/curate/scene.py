"""What a scan finds in a video: facts of the file, and its scenes as exact spans with small features.

These records travel between processes and into tables, so they hold numbers and one small picture, never frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Scene:
    """What is shown between two cuts. Times are ticks of the file's clock (`Scan.time_base`)."""

    start_pts: int
    """When its first frame is shown."""
    end_pts: int
    """When the next scene's first frame is shown, or the video ends: the first tick that is not the scene's."""
    num_frames: int
    """Frames that a decoder gives in the span."""
    central_pts: int
    """When the frame of `central_jpeg` is shown: in the middle of a scene, give or take 1/24 of its length; less exact
    for pictures so large that 24 of them are too much to hold."""
    central_jpeg: bytes
    """The central frame as displayed (upright, square pixels), at most `ScanOptions.image_side` pixels a side."""
    cut_score: float
    """HSV content difference, 0 to 255, between its first frame and the one before, measured at 64 pixels where it is
    far from the threshold; 0 for the video's first scene."""
    motion: float
    """Mean absolute difference of brightness from frame to frame within the scene, 0 to 255."""
    brightness: float
    """Mean brightness (V of HSV), 0 to 255."""
    sharpness: float
    """Mean absolute Laplacian of the central picture, 0 to 1020."""
    letterbox_share: float
    """Share of the picture, 0 to 1, that lies in bars at its edges which are dark all through the scene."""
    static_share: float
    """Share of the frames, 0 to 1, that repeat the frame before."""
    corrupt_share: float
    """Share of the frames, 0 to 1, that the decoder calls damaged, or that are missing beside those that are there."""


@dataclass(frozen=True)
class Scan:
    """What one pass over a video finds."""

    codec: str
    """FFmpeg's name: "h264", "vp9", ..."""
    time_base: Fraction
    """Seconds of one tick of the file's clock."""
    first_pts: int
    """When the first frame is shown; not always 0."""
    end_pts: int
    """When the last frame ends."""
    num_frames: int
    """Frames decoded, the damaged ones among them."""
    corrupt_frames: int
    """Frames that the decoder calls damaged, and packets that it could not decode at all."""
    width: int
    """Pixels as displayed: upright and square."""
    height: int
    fps: float
    """Frames per second; the average where the rate varies."""
    variable_rate: bool
    """Frames last differently long, by more than the clock's rounding."""
    rotation: int
    """Degrees, a multiple of 90, that a player turns the stored picture counter-clockwise."""
    pixel_aspect: Fraction
    """Width of a stored pixel over its height."""
    interlaced: bool
    high_dynamic_range: bool
    """Tagged PQ or HLG. Pixels are taken as they are: nothing here maps tones."""
    static_overlay: float
    """Edges that stay while scenes change (logos, watermarks), 0 to 1 of all edges of a picture; NaN where the video
    has less than four different scenes."""
    warnings: tuple[str, ...]
    """What a user should know of this file, one sentence each."""
    scenes: tuple[Scene, ...]
    """In order, without gaps: the first starts at `first_pts`, the last ends at `end_pts`."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        return self.seconds(self.end_pts)

    def seconds(self, pts: int) -> float:
        """Seconds after the first frame, as `timeloom.data.read_video` counts: a virtual clip is
        (`seconds(scene.start_pts)`, `seconds(scene.end_pts)`)."""
        return float((pts - self.first_pts) * self.time_base)
