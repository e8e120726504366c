"""Counts over the rows of a run, in the bins of the paper's Figure 2, and what the work would cost at full size."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from timeloom.curate.recipe import PriceOptions

PAPER_DURATIONS = {"0–2 s": 39.4, "2–4 s": 19.8, "4–8 s": 20.0, "8–14 s": 14.4, "14–20 s": 4.1, "over 20 s": 2.3}
"""HD-VG-130M, percent of the clips; VideoFactory (arXiv 2305.10874), Figure 2."""
PAPER_WORDS = {"under 7": 5.8, "7–9": 42.9, "9–11": 37.9, "over 11": 13.4}
"""The same, words of a caption. Bins as drawn; a caption of 9 words is counted in 7–9 here, one of 11 in 9–11."""
DURATION_EDGES, WORD_EDGES = (2.0, 4.0, 8.0, 14.0, 20.0), (7, 10, 12)
FULL_SIZE_HOURS = 100_000
COPY = "the same content"
"""How the reason begins of a file that is a copy of another."""


@dataclass
class Statistics:
    """What came out of a run."""

    expected: int = 0
    """Sources that were to be curated; done + failed always."""
    done: int = 0
    failed: int = 0
    clips: int = 0
    kept: int = 0
    source_hours: float = 0.0
    """Of the sources that are done."""
    kept_hours: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """Sources that failed, by reason."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Clips dropped, by reason; a clip may have several."""
    durations: Counter[str] = field(default_factory=Counter)
    """Kept clips, in the paper's bins."""
    words: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    label_hours: Counter[str] = field(default_factory=Counter)
    caption_origins: Counter[str] = field(default_factory=Counter)

    def add_source(self, row: dict[str, Any]) -> None:
        """Count a row of the ledger."""
        self.expected += 1
        if row["status"] == "done":
            self.done += 1
            self.source_hours += row["duration_s"] / 3600
        else:
            self.failed += 1
            self.failures[_kind(row["why"])] += 1

    def add_clip(self, row: dict[str, Any]) -> None:
        """Count a row of the clips."""
        self.clips += 1
        self.reasons.update(row["reasons"])
        if row["kept"]:
            self.kept += 1
            self.kept_hours += row["duration_s"] / 3600
            self.durations[_bin(row["duration_s"], DURATION_EDGES, PAPER_DURATIONS)] += 1
            self.words[_bin(row["caption_words"], WORD_EDGES, PAPER_WORDS)] += 1
            self.caption_origins[row["caption_origin"]] += 1
            if row["label"]:
                self.labels[row["label"]] += 1
                self.label_hours[row["label"]] += row["duration_s"] / 3600

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the same run gives the same text."""
        plain = {
            name: dict(value.most_common()) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }
        plain["durations"] = {name: self.durations[name] for name in PAPER_DURATIONS}
        plain["words"] = {name: self.words[name] for name in PAPER_WORDS}
        plain["label_hours"] = {name: round(hours, 6) for name, hours in self.label_hours.most_common()}
        return {**plain, "source_hours": round(self.source_hours, 6), "kept_hours": round(self.kept_hours, 6)}


def _bin(value: float, edges: tuple[float, ...], names: dict[str, float]) -> str:
    return list(names)[sum(value >= edge for edge in edges)]


def _kind(why: str) -> str:
    """A reason without what is particular to one source: names, numbers, details."""
    if why.startswith(COPY):
        return COPY
    general = re.sub(r" \([^)]*\)", "", why).partition(";")[0]
    return re.sub(r"(?<= )\d[\d.]*(?= |$)", "…", general)


@dataclass
class Cost:
    """What the work took, as far as it was measured, in this run or in those before that it goes on from."""

    scan_cpu_s: float = 0.0
    scanned_hours: float = 0.0
    caption_s: float = 0.0
    """On the clock of one captioning device."""
    captioned: int = 0
    """Clips."""

    def estimate(self, statistics: Statistics, prices: PriceOptions, hours: float = FULL_SIZE_HOURS) -> dict[str, Any]:
        """Core-hours, captioning hours and money for `hours` of such sources, and where captions become the limit.

        Everything is proportional: a source hour costs the measured CPU seconds of the scan, and gives the measured
        number of clips to caption.
        """
        if not self.scanned_hours or not self.scan_cpu_s:
            return {}
        core_hours = self.scan_cpu_s / 3600 / self.scanned_hours * hours
        result = {
            "hours": hours,
            "core_hours": round(core_hours, 1),
            "core_hours_cost": round(core_hours * prices.core_hour, 2),
            "currency": prices.currency,
            "scan_cpu_s_per_source_hour": round(self.scan_cpu_s / self.scanned_hours, 2),
        }
        if self.captioned and self.caption_s and statistics.source_hours:
            clips = self.captioned / statistics.source_hours * hours
            caption_hours = self.caption_s / self.captioned * clips / 3600
            result |= {
                "clips_to_caption": round(clips),
                "caption_s_per_clip": round(self.caption_s / self.captioned, 4),
                "caption_hours": round(caption_hours, 1),
                "caption_hours_cost": round(caption_hours * prices.accelerator_hour, 2),
                # One captioning device keeps up with so many scanning cores; with more, captions are the limit.
                "cores_that_one_captioner_keeps_up_with": round(core_hours / caption_hours, 2),
            }
        return result
