"""From options to clips: which sources, which part of each, and which window of each clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from timeloom.data.buckets import budget_sizes
from timeloom.data.caption_table import read_csv_clips, read_jsonl_clips
from timeloom.data.clip import ClipSource, Ledger, Window
from timeloom.data.curated import open_curated
from timeloom.data.digits import DigitsSource, combinations_of
from timeloom.data.files import STILL_SUFFIXES, VIDEO_SUFFIXES
from timeloom.data.folder import FolderSource
from timeloom.data.hd_vg_130m import read_hd_vg_130m
from timeloom.data.hd_vila import read_hd_vila
from timeloom.data.mixture import Mixture, Part, parts_of
from timeloom.data.movie import Size
from timeloom.data.msr_vtt import read_msr_vtt
from timeloom.data.order import Interleave, whole_weights
from timeloom.data.panda_70m import read_panda_70m
from timeloom.data.shards import ShardSource
from timeloom.data.span import ShortClips
from timeloom.data.table import Scan, TableSource
from timeloom.data.ucf_101 import read_ucf_101
from timeloom.data.webvid import read_webvid
from timeloom.errors import TimeloomError, unknown_name
from timeloom.schema import Schema

DROP_LIMIT = 0.2
"""Of the clips found; dropping more needs `--allow-drop`."""


class SourceOptions(Schema):
    """Where clips come from."""

    source: str = "digits"
    """digits, folder, images, csv, jsonl, webvid, msr-vtt, ucf-101, hd-vg-130m, hd-vila, panda-70m,
    webdataset or curated."""
    path: str | None = None
    """The folder, the annotation file or the folder of them, or the shards (path, URL, pipe:, with braces)."""
    captions: str | None = None
    """For folder and images: CSV or JSONL of captions; without it they are looked for in the folder and beside each
    clip."""
    videos: str | None = None
    """Folder of the files that an annotation file names; by default the folder it lies in."""
    split: str | None = None
    """For msr-vtt (train unless said) and ucf-101 (all unless said): train, validate, test or all."""
    colours: list[str] = Field(default_factory=list)
    """For *digits*, with `backgrounds` a style: digits in these colours alone. All when empty."""
    backgrounds: list[str] = Field(default_factory=list)
    """For *digits*: these backgrounds alone. All when empty."""

    @field_validator("source")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SOURCES:
            raise ValueError(str(unknown_name("source", name, SOURCES)))
        return name

    @model_validator(mode="after")
    def _has_what_it_reads(self) -> SourceOptions:
        if self.source != "digits" and not self.path and not getattr(self, "sources", ()):
            raise ValueError(f"data.path, the folder or file of the clips, is needed for `source: {self.source}`")
        return self

    @model_validator(mode="after")
    def _has_a_style_that_there_is(self) -> SourceOptions:
        if self.source != "digits" and (self.colours or self.backgrounds):
            raise ValueError(f"data.colours and data.backgrounds are for `source: digits`, not {self.source}")
        try:
            combinations_of("all", tuple(self.colours), tuple(self.backgrounds))
        except TimeloomError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def style(self) -> dict[str, Any]:
        """Of a `DigitsSource`."""
        return {"colours": self.colours, "backgrounds": self.backgrounds}

    @property
    def title(self) -> str:
        restrictions = (("", [self.path or ""]), ("in ", self.colours), ("on ", self.backgrounds))
        return " ".join([self.source, *(word + ", ".join(names) for word, names in restrictions if any(names))])


class WeightedSource(SourceOptions):
    """One of several sources."""

    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Its share of the training samples, relative to the other sources' weights."""


class DataOptions(SourceOptions):
    """What a network sees. In recipes: `data`."""

    sources: list[WeightedSource] = Field(default_factory=list)
    """Several sources, mixed by weight; instead of `source` and its options."""
    num_frames: int = Field(default=16, ge=1, le=1024)
    """Frames of a training clip; 1 trains on images."""
    fps: float = Field(default=8.0, gt=0)
    """Frames a second at which a clip is sampled."""
    height: int = Field(default=64, ge=8, multiple_of=8)
    """Pixels."""
    width: int = Field(default=64, ge=8, multiple_of=8)
    """Pixels."""
    buckets: list[tuple[int, int]] | int | None = None
    """Train at several sizes, each clip at the one nearest to its shape: a list of [height, width], or a number of
    pixels for sizes of about that many. Held-out clips and previews keep `height` and `width`."""
    short_clips: ShortClips = "drop"
    """Of clips shorter than the window: drop, slow (spread evenly over the window), repeat_last (frame) or loop."""
    windows: int | None = Field(default=4, ge=1)
    """Of each clip so many windows are seen, spread over its length, one an epoch in turn. null takes one anywhere each
    time; then nothing can be kept in the cache. Has no meaning for *digits*."""
    cache: bool = True
    """Encode each window and caption once, and keep the latents and text features (see docs/data.md); for tasks that
    train on latents. *digits* are drawn anew."""
    probe_up_to: int = Field(default=10_000, ge=0)
    """Sources with at most so many clips are opened file by file at the start; larger tables are believed."""
    allow_drop: bool = Field(default=False, exclude=True)
    """Go on although more than 20 % of a source's clips are dropped."""
    validation_clips: int = Field(default=32, ge=1)
    """Clips held out for the validation loss. *digits* has its own split; other sources give these up."""

    @field_validator("sources", mode="before")
    @classmethod
    def _known_options(cls, sources: Any) -> Any:
        for options in sources if isinstance(sources, list) else []:
            for name in options if isinstance(options, dict) else []:
                if name not in WeightedSource.model_fields:
                    raise ValueError(str(unknown_name("option", name, WeightedSource.model_fields)))
        return sources

    @model_validator(mode="after")
    def _fits_together(self) -> DataOptions:
        doubled = self.model_fields_set & set(SourceOptions.model_fields)
        if self.sources and any(getattr(self, name) != SourceOptions.model_fields[name].default for name in doubled):
            raise ValueError(f"data.sources stands instead of data.{', data.'.join(sorted(doubled))}; give one of them")
        for size in self.sizes:
            if min(size) < 8 or any(side % 8 for side in size):
                raise ValueError(f"data.buckets: sides must be multiples of 8, not {size[0]} x {size[1]}")
        return self

    @property
    def window(self) -> Window:
        """The frames that the network sees of a clip."""
        return Window(self.num_frames, self.fps, self.height, self.width)

    @property
    def sizes(self) -> list[Size]:
        """(height, width) of the buckets; none without `buckets`."""
        return budget_sizes(self.buckets) if isinstance(self.buckets, int) else list(self.buckets or [])

    @property
    def chosen(self) -> list[WeightedSource]:
        """Every source, with its weight."""
        own = {name: getattr(self, name) for name in SourceOptions.model_fields}
        return self.sources or [WeightedSource(**own)]


Read = Callable[[Path, Path, str | None], tuple[pa.Table, Ledger]]
Opener = Callable[[SourceOptions, Scan], ClipSource]


def _folder(suffixes: frozenset[str]) -> Opener:
    def open_folder(options: SourceOptions, scan: Scan) -> ClipSource:
        return FolderSource(_path(options.path), options.captions, scan=scan, suffixes=suffixes)

    return open_folder


def _table(read: Read) -> Opener:
    """A source whose annotations `read` turns into a table of clips."""

    def open_table(options: SourceOptions, scan: Scan) -> ClipSource:
        path = _path(options.path)
        videos = _path(options.videos) if options.videos else path if path.is_dir() else path.parent
        if not videos.is_dir():
            raise TimeloomError(f"{videos}: there is no such folder of videos.")
        table, ledger = read(path, videos, options.split)
        return TableSource(str(path), table, ledger, scan, videos)

    return open_table


def _path(text: str | None) -> Path:
    assert text is not None  # checked with the options
    return Path(text).expanduser()


SOURCES: dict[str, Opener] = {
    "digits": lambda options, scan: DigitsSource("train", **options.style),
    "folder": _folder(VIDEO_SUFFIXES),
    "images": _folder(STILL_SUFFIXES),
    "csv": _table(lambda path, videos, split: read_csv_clips(path)),
    "jsonl": _table(lambda path, videos, split: read_jsonl_clips(path)),
    "webvid": _table(read_webvid),
    "msr-vtt": _table(read_msr_vtt),
    "ucf-101": _table(read_ucf_101),
    "hd-vg-130m": _table(read_hd_vg_130m),
    "hd-vila": _table(read_hd_vila),
    "panda-70m": _table(read_panda_70m),
    "webdataset": lambda options, scan: ShardSource(str(options.path), scan),
    "curated": lambda options, scan: open_curated(_path(options.path), options.videos, scan),
}
"""A new source is one line here, and a reader that gives a table of clips (see table.py)."""


def open_sources(data: DataOptions, seed: int) -> tuple[ClipSource, ClipSource]:
    """The training clips and the held-out ones, which have none in common, nor two clips cut from one video.

    Raises:
        TimeloomError: too few clips to hold some out, or too many dropped.
    """
    scan = Scan(data.window, data.short_clips, data.probe_up_to)
    opened = [None if options.source == "digits" else SOURCES[options.source](options, scan) for options in data.chosen]
    eligible = [source is None or data.num_frames == 1 or not source.outline().stills.all() for source in opened]
    if not any(eligible):
        raise TimeloomError("data: all clips are pictures; train on them with num_frames: 1, or add videos.")
    weights = [Fraction(str(options.weight)) for options in data.chosen]
    quotas = _quotas(weights, eligible, data.validation_clips)
    training, held_out = [], []
    for options, source, weight, quota in zip(data.chosen, opened, weights, quotas, strict=True):
        parts: tuple[ClipSource, ClipSource | None]
        if source is None:
            own = DigitsSource("validation", seed, num_clips=quota, **options.style) if quota else None
            parts = DigitsSource("train", seed, **options.style), own
        else:
            parts = _split(options.title, source, quota, seed, data.num_frames > 1)
            _refuse_if_many(options.title, source.ledger, data.allow_drop)
        training.append((parts[0], weight))
        if parts[1] is not None:
            held_out.append((parts[1], weight))
    return tuple(parts[0][0] if len(parts) == 1 else Mixture(parts) for parts in (training, held_out))  # type: ignore


def _quotas(weights: Sequence[Fraction], eligible: Sequence[bool], clips: int) -> list[int]:
    """How many clips each source gives up, by weight."""
    able = [place for place, can in enumerate(eligible) if can]
    turns = Interleave(whole_weights([weights[place] for place in able]))
    given = [able[turns(number)[0]] for number in range(clips)]
    return [given.count(place) for place in range(len(weights))]


def _split(title: str, source: ClipSource, quota: int, seed: int, no_stills: bool) -> tuple[Part, Part | None]:
    """Training clips and `quota` held-out ones. The other clips of a held-out clip's video are left out of both, unless
    there are too few videos for that."""
    if len(source) <= quota:
        raise TimeloomError(
            f"{title}: {source.ledger.summary()}; {quota} are to be held out, so none is left to "
            "train on. Add clips or lower data.validation_clips."
        )
    order = np.random.default_rng(seed).permutation(len(source))
    if not quota:
        return Part(source, np.sort(order)), None
    outline = source.outline()
    able = order[~outline.stills[order]] if no_stills else order
    groups = outline.groups[able]
    looked_at, firsts = 0, np.empty(0, dtype=np.int64)
    while len(firsts) < quota and looked_at < len(able):  # mostly the first few are of as many videos
        looked_at = min(len(able), 2 * looked_at or 4 * quota)
        firsts = np.sort(np.unique(groups[:looked_at], return_index=True)[1])[:quota]
    rest = order[~np.isin(outline.groups[order], groups[firsts])]
    if len(firsts) < quota or not len(rest):  # too few videos
        held_out, rest = able[:quota], np.setdiff1d(order, able[:quota])
    else:
        held_out = able[firsts]
        others = np.setdiff1d(order, np.concatenate([held_out, rest]))
        if len(others):
            source.ledger.drop_many(
                (source[int(index)].key for index in others), "of a video that is held out", len(others)
            )
    return Part(source, np.sort(rest)), Part(source, np.sort(held_out))


def _refuse_if_many(title: str, ledger: Ledger, allow_drop: bool) -> None:
    dropped = ledger.reasons.total()
    if allow_drop or dropped <= DROP_LIMIT * ledger.found:
        return
    examples = dict(reversed([(reason, item) for item, reason in ledger.dropped]))
    reasons = [f"{count:,} {reason} ({examples[reason]})" for reason, count in ledger.reasons.most_common(8)]
    raise TimeloomError(
        f"{title}: {dropped:,} of {ledger.found:,} clips found would be dropped, more than {DROP_LIMIT:.0%}: "
        f"{'; '.join(reasons)}. Repair them (for short clips see data.short_clips), or accept it with --allow-drop."
    )


def describe_sources(data: DataOptions, training: ClipSource, held_out: ClipSource) -> list[str]:
    """What was found, used and dropped, and why, a line for each source; then what it is used for."""
    lines = [
        f"{options.title}: {part.ledger.summary()}" + (f"; weight {options.weight:g}" if data.sources else "")
        for options, (part, _) in zip(data.chosen, parts_of(training), strict=True)
    ]
    return [*lines, f"clips: {len(training):,} to train on, {len(held_out):,} held out"]


def describe_shares(data: DataOptions, training: ClipSource, samples: int) -> list[str]:
    """Of several sources, what share of so many training samples each gives, and when it runs dry and begins anew."""
    if len(data.sources) < 2:
        return []
    parts = parts_of(training)
    total = sum((weight for _, weight in parts), Fraction(0))
    lines = []
    for options, (part, weight) in zip(data.sources, parts, strict=True):
        share = float(weight / total)
        once = len(part) / share
        end = f"runs dry every {once:,.0f} samples and begins anew" if once < samples else "does not run dry"
        seen = f"its clips seen {samples / once:.3g} times"
        lines.append(f"{options.title}: {share:.1%} of every stretch of samples, {seen}; it {end}")
    return lines
