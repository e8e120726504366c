"""What `timeloom curate` does, as options: a YAML file, packaged or of one's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from timeloom.curate.cut import CutOptions
from timeloom.curate.filters import FILTERS, Bounds
from timeloom.curate.metadata import OF_FILES
from timeloom.curate.sampling import check_shares
from timeloom.curate.scan import ClipOptions, ScanOptions
from timeloom.errors import TimeloomError, unknown_name
from timeloom.schema import Schema, check, read_yaml

Metadata = Literal["hd-vg-130m", "hd-vila", "webvid", "panda-70m", "msr-vtt"]


class SamplingOptions(Schema):
    """Which of the sources are curated."""

    labels: str | None = None
    """CSV or JSONL of `file` and `label`, or HD-VILA's metadata (JSONL of `video_id`) with a `label` or `category`.
    Where it is given, sources that it does not list are left out."""
    count: int | None = Field(default=None, ge=1)
    """Sources to choose; all unless said."""
    shares: dict[str, float] | Literal["natural", "equal"] = "natural"
    """Of each label, relative to the others; labels not named are left out. natural: as they come; equal: alike."""
    seed: int = Field(default=0, ge=0)
    """Another seed chooses others."""

    @model_validator(mode="after")
    def _has_shares(self) -> SamplingOptions:
        try:
            check_shares(self.shares)
        except TimeloomError as error:
            raise ValueError(str(error)) from error
        if self.shares != "natural" and self.labels is None:
            raise ValueError("sampling.shares needs sampling.labels")
        return self


class CaptionOptions(Schema):
    """Where captions come from: sidecars first, then a model."""

    sidecars: bool = True
    """Take captions of sources from a `.txt` beside each, or captions/metadata/index.csv or .jsonl in the folder.
    Such a caption tells of a whole file, so a source with several clips gives it to none."""
    file: str | None = None
    """CSV or JSONL of `clip_id` and `caption`, made elsewhere; before all others."""
    model: str | None = "Salesforce/blip2-opt-2.7b"
    """An image-to-text model of transformers, by its folder or its Hub id in the local cache; it sees each clip's
    central frame. null: none."""
    prompt: str | None = None
    """Words before the caption, for models that take them ("a photo of"); they are no part of it."""
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Frames at once; 32 on an accelerator, 4 on a CPU unless said."""
    max_tokens: int = Field(default=30, ge=1)
    """Tokens of a caption at most."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Numbers that the networks compute in; auto: bf16 on an accelerator, fp32 on a CPU."""
    dropped_too: bool = False
    """Caption clips that filters drop anyway."""
    similarity: str | None = None
    """A CLIP of transformers, by its folder or its Hub id in the local cache, for the column `clip_similarity`."""


class OutputOptions(Schema):
    """What becomes of the clips."""

    form: Literal["virtual", "shards", "files"] = "virtual"
    """virtual: spans of the sources, no file at all; shards: WebDataset at training size, encoded in the pass of the
    scan; files: exact cuts of full size."""
    clips_per_shard: int = Field(default=1000, ge=1)
    """Clips in one tar."""
    clips: ClipOptions = ClipOptions()
    """Of shards: size and quality. Durations follow filters.duration_s."""
    cut: CutOptions = CutOptions()
    """Of files: how they are cut."""
    metadata: list[Metadata] = Field(default_factory=list)
    """Also write the kept clips in these data sets' own formats."""
    shown_sources: int = Field(default=40, ge=0)
    """Sources with a strip of pictures in the report."""


class PriceOptions(Schema):
    """What computing costs, for the estimate in the report."""

    core_hour: float = Field(default=0.04, ge=0)
    """An hour of a CPU core."""
    accelerator_hour: float = Field(default=2.0, ge=0)
    """An hour of a GPU."""
    currency: str = "USD"
    """Of both."""


class CurateRecipe(Schema):
    """Everything that decides the rows."""

    sampling: SamplingOptions = SamplingOptions()
    """Which sources."""
    scan: ScanOptions = ScanOptions()
    """How scenes are found and measured."""
    captions: CaptionOptions = CaptionOptions()
    """Where captions come from."""
    filters: dict[str, Bounds] = Field(default_factory=dict)
    """Columns and the values that a kept clip may have."""
    output: OutputOptions = OutputOptions()
    """What becomes of the clips."""
    prices: PriceOptions = PriceOptions()
    """For the estimate of costs."""

    @field_validator("filters")
    @classmethod
    def _known_columns(cls, filters: dict[str, Bounds]) -> dict[str, Bounds]:
        for name in filters:
            if name not in FILTERS:
                raise ValueError(str(unknown_name("column in filters:", name, FILTERS)))
        return filters

    @field_validator("output")
    @classmethod
    def _lengths_follow(cls, output: OutputOptions) -> OutputOptions:
        given = output.clips.model_fields_set & {"min_duration_s", "max_duration_s"}
        if given:
            raise ValueError(f"output.clips.{min(given)} follows filters.duration_s; set it there")
        return output

    @model_validator(mode="after")
    def _fits_together(self) -> CurateRecipe:
        if self.scan.clips is not None:
            raise ValueError("scan.clips follows from output.form: shards and output.clips; set it there")
        if self.output.form != "files" and (flat := [name for name in self.output.metadata if name in OF_FILES]):
            raise ValueError(f"output.metadata: {flat[0]} knows no spans; it needs output.form: files")
        if "clip_similarity" in self.filters and self.captions.similarity is None:
            raise ValueError("filters.clip_similarity needs captions.similarity, the CLIP that measures it")
        return self

    @property
    def scanning(self) -> ScanOptions:
        """Of the scan, with the clips that it is to encode."""
        if self.output.form != "shards":
            return self.scan
        bounds = self.filters.get("duration_s", Bounds())
        longest = bounds.max if bounds.max is not None else float("inf")
        lengths = {"min_duration_s": bounds.min or 0.0, "max_duration_s": longest}
        return self.scan.model_copy(update={"clips": self.output.clips.model_copy(update=lengths)})


def packaged() -> list[str]:
    """Names of the recipes that come with Timeloom."""
    folder = resources.files("timeloom.curate") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> CurateRecipe:
    """A recipe by its file or its packaged name, with `key.subkey=value` overrides.

    Raises: TimeloomError where there is no such recipe, or the first thing that is wrong with it.
    """
    path = Path(name)
    if not path.is_file():
        if name not in packaged():
            raise unknown_name("recipe", name, packaged())
        path = Path(str(resources.files("timeloom.curate") / "recipes" / f"{name}.yaml"))
    raw: dict[str, Any] = read_yaml(path, list(overrides))
    recipe = check(CurateRecipe, raw, path)
    if recipe.scan.detector.startswith("pyscenedetect") and importlib.util.find_spec("scenedetect") is None:
        raise TimeloomError(f"scan.detector: {recipe.scan.detector} needs it: pip install 'timeloom[curate]'.")
    return recipe
