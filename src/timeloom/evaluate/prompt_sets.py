"""The prompts of a protocol and the real videos that belong to them, from annotations that the user gives.

Which prompts, and in which order, depends on the protocol and the annotations alone. Prompt i is generated with the
protocol's seed + i.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from timeloom.data.captions import read_text
from timeloom.data.clip import Ledger
from timeloom.data.msr_vtt import read_msr_vtt
from timeloom.data.ucf_101 import read_ucf_101
from timeloom.data.webvid import read_webvid
from timeloom.errors import TimeloomError
from timeloom.evaluate.protocol import Protocol

Item = TypeVar("Item")

NEEDED = {
    "ucf-101": "the folder with classInd.txt and trainlist01.txt",
    "msr-vtt": "MSR-VTT's JSON with videos and sentences",
    "webvid": "WebVid's CSV with videoid and name",
}
"""What `--annotations` is, by source."""

READERS = {
    "ucf-101": read_ucf_101,
    "msr-vtt": read_msr_vtt,
    "webvid": read_webvid,
}


@dataclass(frozen=True)
class Prompt:
    """One video to generate."""

    index: int
    """In the whole set; the seed counts by it."""
    text: str
    video: str | None
    """The real video that the text describes, relative to its folder; None where it describes a class."""


@dataclass(frozen=True)
class PromptSet:
    """All prompts of a protocol."""

    prompts: list[Prompt]
    videos: list[str] | None
    """The real videos of the split, relative to their folder; None where the annotations are not given."""
    ledger: Ledger = field(default_factory=Ledger)
    """Rows of the annotations that cannot be used."""

    @property
    def sha256(self) -> str:
        """Of all texts, in their order."""
        total = hashlib.sha256()
        for prompt in self.prompts:
            total.update(f"{prompt.index} {prompt.text}\n".encode())
        return total.hexdigest()

    def some(self, count: int | None, seed: int) -> list[Prompt]:
        """`count` of the prompts, at random by the seed, so that a trial is not of one class; all for None."""
        if count is None or count >= len(self.prompts):
            return self.prompts
        return drawn(self.prompts, [str(prompt.index) for prompt in self.prompts], count, seed)


def read_prompts(protocol: Protocol, file: Path, annotations: Path | None, videos: Path | None) -> PromptSet | None:
    """The prompts of a protocol; None where it has none, or where they cannot be known without annotations.

    Args:
        protocol: with its rule.
        file: of the protocol; descriptions lie beside it.
        annotations: as published; None where the user gives none.
        videos: the folder of real videos.

    Raises:
        TimeloomError: annotations that cannot be read, or a class without a description.
    """
    rule = protocol.prompts
    if rule is None or rule.source == "digits" or (annotations is None and rule.text != "descriptive"):
        return None
    listing, ledger = _listing(protocol, annotations, videos)
    if rule.text == "descriptive":
        assert rule.descriptions is not None
        sentences = _descriptions(file.parent / rule.descriptions)
        files = None if listing is None else [name for name, _ in listing]
        _require_described(files or [], sentences)
        texts: list[tuple[str | None, str]] = [(None, sentences[name]) for name in sorted(sentences)]
    else:
        assert listing is not None
        files = list(dict.fromkeys(name for name, _ in listing))
        texts = [*(_one_each(listing, protocol.seed) if rule.one_a_video else listing)]
    if rule.count is not None and rule.count < len(texts):
        texts = drawn(texts, [f"{place}" for place in range(len(texts))], rule.count, protocol.seed)
    if protocol.real.as_prompted and files is not None:
        files = list(dict.fromkeys(name for name, _ in texts if name is not None))
    repeated = [pair for pair in texts for _ in range(rule.repeats)]
    prompts = [
        Prompt(index, text, name if rule.text == "caption" else None) for index, (name, text) in enumerate(repeated)
    ]
    return PromptSet(prompts, files, ledger)


def drawn(items: Sequence[Item], names: Sequence[str], count: int, seed: int) -> list[Item]:
    """`count` of the items, chosen by the seed and their names alone, in the order they came."""
    order = sorted(range(len(items)), key=lambda place: _digest(seed, names[place]))
    return [items[place] for place in sorted(order[:count])]


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(repr((seed, name)).encode(), digest_size=16).digest()


def _listing(
    protocol: Protocol, annotations: Path | None, videos: Path | None
) -> tuple[list[tuple[str, str]] | None, Ledger]:
    """(file, caption) of every row of the annotations, and what could not be read of them."""
    rule = protocol.prompts
    assert rule is not None
    if annotations is None:
        return None, Ledger()
    path = annotations.expanduser()
    folder = videos.expanduser() if videos is not None else path if path.is_dir() else path.parent
    table, ledger = READERS[rule.source](path, folder, protocol.split)
    rows = [(file, text.strip()) for file, text in _pairs(table) if text.strip()]
    if len(rows) < table.num_rows:
        ledger.drop_many([], "empty caption", table.num_rows - len(rows))
    ledger.found += table.num_rows
    if not rows:
        raise TimeloomError(f"{path}: no prompt can be used: {ledger.summary()}.")
    return rows, ledger


def _pairs(table: pa.Table) -> Iterable[tuple[str, str]]:
    return zip(table["file"].to_pylist(), table["caption"].to_pylist(), strict=True)


def _one_each(listing: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """One caption of each video, by the seed and the video's name."""
    captions: dict[str, list[str]] = {}
    for name, text in listing:
        captions.setdefault(name, []).append(text)
    return [(name, own[int.from_bytes(_digest(seed, name), "little") % len(own)]) for name, own in captions.items()]


def _descriptions(path: Path) -> dict[str, str]:
    """{class: sentence} of a CSV with the columns class and caption."""
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    if not rows or not {"class", "caption"} <= set(rows[0]):
        raise TimeloomError(f"{path}: the columns class and caption are expected.")
    return {row["class"]: row["caption"] for row in rows}


def _require_described(files: Sequence[str], sentences: dict[str, str]) -> None:
    classes = {Path(file).parent.name or file.split("_")[1] for file in files}
    if lacking := sorted(classes - set(sentences)):
        raise TimeloomError(f"{len(lacking)} classes have no description: {', '.join(lacking[:5])}.")
