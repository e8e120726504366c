"""Options of the temporal mechanism `swap` (VideoFactory). Data, no network: recipes are read without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from timeloom.schema import Schema

Stream = Literal["spatial", "temporal"]
Queries = Literal["none", "spatial", "temporal", "spatial_first", "temporal_first"]

Side = Annotated[int, Field(ge=0)]
Window = tuple[Side, Side, Side]
"""Frames, rows, columns; 0 for all that there are."""


class SwapOptions(Schema):
    """Of the temporal mechanism `swap`. In recipes: `model.swap`."""

    queries: Queries = "spatial_first"
    """Whose features ask in Swap-CA: spatial_first or temporal_first, swapping from block to block; spatial or temporal
    in all of them; none computes no Swap-CA, spatial and temporal features are added (the first phase of training)."""
    window: Window = (8, 8, 8)
    """Frames, rows and columns of latents that attend to each other in Swap-CA; 0 for all: [0, 0, 0] is global."""
    heads: int | None = Field(default=None, ge=1)
    """Of Swap-CA. As many as the U-Net's attention has at that level when absent."""
    feed_forward: bool = True
    """Whether Swap-CA ends in a feed-forward network; two thirds of its parameters."""
    skips: bool = True
    """Whether temporal features skip across each spatial down- and up-sampling."""
    width: float = Field(default=1.0, gt=0, le=1)
    """Channels in which temporal modules and Swap-CA compute, as a share of the U-Net's, rounded to whole groups."""

    def asks(self, block: int) -> Stream | None:
        """Which stream gives the queries in the `block`-th Swap-CA of a network; None where the two are only added."""
        if self.queries == "none":
            return None
        if self.queries in ("spatial", "temporal"):
            return self.queries
        return "spatial" if (self.queries == "spatial_first") == (block % 2 == 0) else "temporal"
