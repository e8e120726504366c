"""Features, distances, protocols and the report.

    from timeloom.evaluate import frechet_distance, frechet_distance_from_moments

Names are looked up only when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timeloom.evaluate.metrics.frechet import frechet_distance, frechet_distance_from_moments

__all__ = ["frechet_distance", "frechet_distance_from_moments"]

_HOMES = dict.fromkeys(__all__, "timeloom.evaluate.metrics.frechet")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'timeloom.evaluate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
