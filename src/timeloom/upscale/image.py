"""A picture made larger: what it holds beside its colours, transparency, comes along; gray stays gray."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from timeloom.data.animation import DAMAGE
from timeloom.data.write import MAX_SIDE, replace_file
from timeloom.errors import TimeloomError
from timeloom.upscaler import Upscaler

SUFFIXES = (".png", ".webp")
FORMATS: dict[str, dict[str, Any]] = {".png": {"format": "PNG"}, ".webp": {"format": "WEBP", "lossless": True}}


def upscale_image(source: Path, target: Path, upscaler: Upscaler) -> tuple[int, int]:
    """Write the picture `source`, enlarged, to `target`, .png or .webp, exactly; (height, width) of the result.

    Raises:
        TimeloomError: the source is no picture of a single frame, or is damaged, or its numbers are no shades of gray;
            the target cannot be written or cannot hold so large a picture.
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
    limit = MAX_SIDE[target.suffix.lower()]
    if upscaler.scale * max(picture.size) > limit:
        size = f"{upscaler.scale * picture.width}x{upscaler.scale * picture.height}"
        raise TimeloomError(f"{target}: {target.suffix} holds at most {limit} pixels a side, not {size}; write a .png.")
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith(("I", "F")):  # 16 bits a pixel, gray
        levels = np.asarray(picture, dtype=np.float64)
        if picture.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise TimeloomError(f"{source}: its numbers are no shades of gray of 16 bits; convert it first.")
        picture = Image.fromarray((levels * (255 / 65535)).round().astype(np.uint8))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    gray = picture.mode in ("1", "L", "LA")
    colours = picture.convert("RGBA") if transparent else picture.convert("RGB")
    large = Image.fromarray(upscaler.enlarge(np.asarray(colours)[None, :, :, :3])[0])
    if gray:
        large = large.convert("L")
    if transparent:
        large.putalpha(colours.getchannel("A").resize(large.size, Image.Resampling.BICUBIC))
    content = io.BytesIO()
    large.save(content, icc_profile=profile, **FORMATS[target.suffix.lower()])
    replace_file(target, content.getvalue())
    return large.height, large.width
