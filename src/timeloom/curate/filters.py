"""Filters: bounds on the columns of a clip. What lies outside is kept with the reason, and not used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from timeloom.schema import Schema

OF_CAPTIONS = ("caption_words", "clip_similarity")
"""Columns that are known only after captioning; a clip without a value is dropped."""
FILTERS = (
    "duration_s",
    "num_frames",
    "width",
    "height",
    "aspect",
    "fps",
    "motion",
    "brightness",
    "sharpness",
    "letterbox_share",
    "static_share",
    "static_overlay",
    "corrupt_share",
    *OF_CAPTIONS,
)
"""Columns that may be bounded."""
NO_CAPTION = "no caption"


class Bounds(Schema):
    """Values that a column may have, both ends included."""

    min: float | None = None
    """The least; none unless said."""
    max: float | None = None
    """The greatest; none unless said."""

    @model_validator(mode="after")
    def _in_order(self) -> Bounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


def reasons_of(row: Mapping[str, Any], filters: Mapping[str, Bounds], captioned: bool) -> list[str]:
    """Why a clip is dropped: nothing where it is kept.

    `captioned` says whether captions are known; without, filters on them wait. What a video cannot tell (the static
    overlay of a single scene is NaN) drops nothing; a clip without a caption is dropped, as it cannot be trained on.
    """
    reasons = [reason for name, bounds in filters.items() if (reason := _outside(row, name, bounds, captioned))]
    if captioned and not row["caption"] and not reasons:  # clips that are dropped anyway are not captioned
        reasons.append(NO_CAPTION)
    return reasons


def _outside(row: Mapping[str, Any], name: str, bounds: Bounds, captioned: bool) -> str | None:
    if name in OF_CAPTIONS and (not captioned or not row["caption"]):
        return None
    value = row[name]
    if value is None or math.isnan(value):
        return f"{name} is not known" if name in OF_CAPTIONS else None
    if bounds.min is not None and value < bounds.min:
        return f"{name} below {bounds.min:g}"
    if bounds.max is not None and value > bounds.max:
        return f"{name} above {bounds.max:g}"
    return None
