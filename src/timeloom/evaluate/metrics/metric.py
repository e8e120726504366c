"""What a metric is: it declares what it needs, consumes features, and answers with a value, an interval and N."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics.features import FeatureSet


@dataclass(frozen=True)
class Result:
    """A value and all that must be said with it."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    """How far the value would move, had the model made other videos; None where there are too few to say."""
    count: int
    """N: generated videos that were measured."""
    missing: int
    """Generated videos that should have been, and have no features."""
    reference_count: int | None
    """Reference videos, or texts; None where none is needed."""
    better: str
    protocol: dict[str, Any]
    """The metric's options: two values can be compared where these, and those of the features, are equal."""
    details: dict[str, Any] = field(default_factory=dict)
    """More numbers of this metric."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        interval = None if self.interval is None else list(self.interval)
        return {**asdict(self), "interval": interval}


@dataclass(frozen=True)
class Metric(ABC):
    """One metric with its options; every field is part of its protocol."""

    name: str
    network: str
    """Which network it looks through: i3d, inception, clip or c3d; pixels for none."""

    output: ClassVar[Literal["features", "logits"]] = "features"
    """What it needs of the network, for every generated video."""
    reference: ClassVar[Literal["videos", "texts"] | None]
    """What it compares with: the same of real videos, the network's features of the texts asked for, or nothing."""
    better: ClassVar[Literal["lower", "higher"]]

    @abstractmethod
    def measure(self, features: FeatureSet, reference: Any = None) -> Result:
        """Measure a set of generated videos.

        Raises:
            TimeloomError: too few videos, features that are not finite, or a reference that does not fit.
        """

    def protocol(self) -> dict[str, Any]:
        """Every option by name, and what is taken of the network."""
        return {**asdict(self), "output": self.output}

    def result(
        self,
        features: FeatureSet,
        value: float,
        interval: tuple[float, float] | None,
        reference_count: int | None = None,
        **details: Any,
    ) -> Result:
        """A value with what is to be said of every value."""
        return Result(
            metric=self.name,
            value=value,
            interval=interval,
            count=len(features),
            missing=len(features.missing),
            reference_count=reference_count,
            better=self.better,
            protocol=self.protocol(),
            details=details,
        )


def require_same_dimensions(features: FeatureSet, dimensions: int) -> None:
    """Raise TimeloomError where the reference's D is another."""
    if features.dimensions != dimensions:
        raise TimeloomError(
            f"{features.label}: {features.dimensions} features cannot be compared with the reference's {dimensions}."
        )
