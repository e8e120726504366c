"""What a protocol fixes: which videos are compared, which frames of them, by which metrics, and with what seed.

protocol = load_protocol(protocols.find("webvid-val"))
protocol.sha256                             # stands in every result; numbers of two hashes are never in one table
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from timeloom.errors import TimeloomError, unknown_name
from timeloom.evaluate.metrics import Metric, find_metric
from timeloom.schema import Schema, check, read_yaml

Window = Literal["start", "middle", "random"]


class ClipRule(Schema):
    """Which frames of a video are seen, and at which size. The networks' own resizing comes after it."""

    num_frames: int = Field(default=16, ge=1, le=1024)
    """Frames of a clip; a video that ends before is a failure, counted and named."""
    fps: float | None = Field(default=8.0, gt=0)
    """Frames a second, whatever the file's own rate; null takes the file's own frames, one after the other."""
    height: int | None = Field(default=256, ge=8)
    """Pixels: resized (bicubic, antialiased) until the picture covers height x width, then its middle is taken. null
    leaves frames as they are displayed."""
    width: int | None = Field(default=256, ge=8)
    """With `height`."""
    real_window: Window = "random"
    """Where a clip begins in a longer real video: at its start, in its middle, or at random by the seed and by what the
    file holds. Generated videos are always seen from their start."""

    @model_validator(mode="after")
    def _both_or_none(self) -> ClipRule:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together: give both, or null for both")
        return self


class PromptRule(Schema):
    """Which prompts videos are generated for, one sample a prompt."""

    source: Literal["digits", "ucf-101", "msr-vtt", "webvid"]
    """The annotations that they come from; the user gives their path."""
    text: Literal["caption", "class", "descriptive"] = "caption"
    """Of UCF-101: "class" is "A person fencing", for every video of the split; "descriptive" is a sentence for each
    class, from `descriptions`."""
    descriptions: str | None = None
    """CSV of class,caption, beside the protocol's file."""
    repeats: int = Field(default=1, ge=1)
    """Videos for each prompt, each from a seed of its own."""
    one_a_video: bool = False
    """Of the captions of a video, one at random by the seed; else every caption is a prompt."""
    count: int | None = Field(default=None, ge=1)
    """So many of the prompts, at random by the seed; null takes all."""


class RealRule(Schema):
    """Which real videos are compared with."""

    count: int | None = Field(default=None, ge=1)
    """So many videos; of more, some at random by the seed."""
    as_prompted: bool = False
    """The videos that the prompts belong to."""


class Published(Schema):
    """A figure to compare with, and how sure it is."""

    model: str
    mark: Literal["text", "cited", "memory"]
    """In the paper's own words, quoted by later papers, or an unverified recollection."""
    values: dict[str, float]
    """By metric."""


class Protocol(Schema):
    """A protocol; every field but the last two decides numbers, and is part of its hash."""

    name: str
    seed: int = Field(default=0, ge=0)
    """Clip i is generated with seed + i; also of what is drawn at random."""
    split: str | None = None
    """Of the annotations: train, test or all. Prompts and real videos are of it."""
    clip: ClipRule = ClipRule()
    prompts: PromptRule | None = None
    """null: for folders of videos alone."""
    generated: int | None = Field(default=None, ge=2)
    """N: generated videos that are measured."""
    real: RealRule = RealRule()
    networks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of networks that metrics look through, such as i3d: {resize: crop}."""
    metrics: dict[str, dict[str, Any]]
    """By name, with options that differ from the metric's own."""
    summary: str = ""
    """One sentence for the report."""
    published: list[Published] = Field(default_factory=list)
    """What papers report by it."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in metrics.items():
            try:
                make_metric(name, options)
            except TimeloomError as error:
                raise ValueError(str(error)) from error
        if not metrics:
            raise ValueError("a protocol needs at least one metric")
        return metrics

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        used = {metric.network for metric in self.make_metrics()}
        if strange := sorted(set(self.networks) - used):
            raise ValueError(f"networks: no metric looks through {', '.join(strange)}; it would change nothing")
        return self

    def make_metrics(self) -> list[Metric]:
        """The metrics, with their options."""
        return [make_metric(name, options) for name, options in self.metrics.items()]

    @property
    def sha256(self) -> str:
        """Of all that decides numbers."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All that decides numbers: options of metrics with their defaults filled in."""
        content = self.model_dump(mode="json", exclude={"summary", "published"})
        return {**content, "metrics": {metric.name: metric.protocol() for metric in self.make_metrics()}}


def make_metric(name: str, options: dict[str, Any]) -> Metric:
    """A metric with some options changed. Raises TimeloomError for an unknown metric or option."""
    metric = find_metric(name)
    known = [field.name for field in dataclasses.fields(metric) if field.name not in ("name", "network")]
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
        wanted = type(getattr(metric, option))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TimeloomError(f"The option {option} of {name} must be of type {wanted.__name__}, not {value!r}.")
    return dataclasses.replace(metric, **options)


def load_protocol(path: Path) -> Protocol:
    """A protocol's file, checked.

    Raises:
        TimeloomError: the first problem, with the file and the option.
    """
    return check(Protocol, read_yaml(path), path)
