"""A picture made larger: what it holds beside its colours, transparency, comes along; gray stays gray."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from timeloom.data.animation import DAMAGE
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.upscaler import Upscaler

SUFFIXES = (".png", ".webp")
FORMATS: dict[str, dict[str, Any]] = {".png": {"format": "PNG"}, ".webp": {"format": "WEBP", "lossless": True}}


def upscale_image(source: Path, target: Path, upscaler: Upscaler) -> tuple[int, int]:
    """Write the picture `source`, enlarged, to `target`, .png or .webp, exactly; (height, width) of the result.

    Raises:
        TimeloomError: the source is no picture of a single frame, or is damaged, or the target cannot be written.
    """
    try:
        with Image.open(source) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                raise TimeloomError(f"{source}: moves; write it as .mp4, not {target.suffix}.")
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except DAMAGE as error:
        raise TimeloomError(
            f"{source}: is not a picture that can be opened ({error}); a video becomes an .mp4."
        ) from error
    if picture.mode.startswith(("I", "F")):  # 16 bits a pixel, gray
        levels = np.asarray(picture, dtype=np.float64)
        picture = Image.fromarray((levels * (255 / max(65535.0, levels.max()))).round().astype(np.uint8))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    gray = picture.mode in ("1", "L", "LA")
    colours = picture.convert("RGBA") if transparent else picture.convert("RGB")
    large = Image.fromarray(upscaler.enlarge(np.asarray(colours)[None, :, :, :3])[0])
    if gray:
        large = large.convert("L")
    if transparent:
        large.putalpha(colours.getchannel("A").resize(large.size, Image.Resampling.BICUBIC))
    content = io.BytesIO()
    large.save(content, **FORMATS[target.suffix.lower()])
    replace_file(target, content.getvalue())
    return large.height, large.width
