"""Timeloom weaves time into text-to-image diffusion.

    from timeloom import TextToVideoPipeline, VideoUNet

Both names import torch, so they are looked up only when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.models.unet import VideoUNet

__all__ = ["TextToVideoPipeline", "VideoUNet", "__version__"]

_HOMES = {"TextToVideoPipeline": "timeloom.generate.pipeline", "VideoUNet": "timeloom.models.unet"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("timeloom")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'timeloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
