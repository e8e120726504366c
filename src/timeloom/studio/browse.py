"""Folders to look at: a curated data set with its reasons, an evaluation, a training run's previews, any videos.

What a folder is, its files say. Visitors see items by their number and only what is drawn here: a small clip made anew
from the first seconds, or a picture. No file is handed out as it is, and no path comes from a visitor.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from timeloom.data.clip import Frames
from timeloom.errors import TimeloomError, unknown_name

ALL, KEPT, DROPPED = "all", "kept", "dropped"
CLIP_S, CLIP_FPS = 4.0, 8.0
"""How much of a clip is shown, and at what rate."""
MOMENT_S = 0.5
"""What is shorter is shown at its own rate: it would be a frame or two."""
CLIP_PX = 320
"""The longer side of what is shown."""
PICTURE_PX = 1600
MOST_FILES = 20_000
"""Of a folder of videos that are listed."""
MOST_OPEN, MOST_DRAWN = 16, 128
"""Collections and drawn items that are kept in memory."""


@dataclass(frozen=True)
class Item:
    """One thing to look at."""

    number: int
    """Its place in the collection."""
    title: str
    """A caption, a prompt, a name."""
    reasons: tuple[str, ...] = ()
    """Why it was dropped, or what is wrong with it."""
    facts: str = ""
    """A line of numbers."""
    picture: bool = False
    """Shown as a picture, not as a clip."""


class Collection(ABC):
    """What a folder holds. `groups` counts the items that each reason picks; `numbers` are the items of a group."""

    kind: str
    """What the folder is, in words."""
    groups: dict[str, int]

    @abstractmethod
    def numbers(self, group: str) -> Sequence[int]:
        """The items of a group, in order; of a group that is not there, none."""

    @abstractmethod
    def item(self, number: int) -> Item: ...

    @abstractmethod
    def frames(self, number: int) -> tuple[Frames, float]:
        """What an item shows, uint8 (F, H, W, 3), and its frames a second. Raises TimeloomError where it cannot."""


def open_collection(folder: Path) -> Collection:
    """Find out what a folder is. Raises TimeloomError where it holds nothing to look at."""
    if not folder.is_dir():
        raise TimeloomError(f"{folder}: there is no such folder to browse.")
    if (folder / "clips.parquet").is_file():
        return CuratedSet(folder)
    if (folder / "result.json").is_file() and any((folder / "clips").glob("*.npz")):
        return JudgedClips(folder)
    if any((folder / "previews").glob("*.png")):
        return Previews(folder)
    return Videos(folder)


class Listed(Collection):
    """A collection whose items all fit in a list."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items
        counts = Counter(reason for item in items for reason in dict.fromkeys(item.reasons))
        dropped = sum(bool(item.reasons) for item in items)
        parts = {KEPT: len(items) - dropped, DROPPED: dropped, **dict(counts.most_common())} if dropped else {}
        self.groups = {ALL: len(items), **parts}

    def numbers(self, group: str) -> Sequence[int]:
        if group == ALL:
            return range(len(self._items))
        return [
            item.number
            for item in self._items
            if (
                not item.reasons if group == KEPT else bool(item.reasons) if group == DROPPED else group in item.reasons
            )
        ]

    def item(self, number: int) -> Item:
        return self._items[number]


class CuratedSet(Collection):
    """The table `clips.parquet` of `timeloom curate`: every clip with its reasons, drawn from the source's span."""

    kind = "curated data set"
    COLUMNS = ("source", "start_s", "end_s", "caption", "kept", "reasons")
    FACTS = ("duration_s", "width", "height", "fps", "motion", "static_overlay")

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = folder / "clips.parquet"
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                if missing := [name for name in self.COLUMNS if name not in names]:
                    raise TimeloomError(f"{path}: has no column {missing[0]!r}; a table of `timeloom curate` has.")
                told = file.schema_arrow.metadata or {}
                self._table = file.read([*self.COLUMNS, *(name for name in self.FACTS if name in names)])
        except (OSError, pa.ArrowException) as error:
            raise TimeloomError(f"{path}: cannot be read as a Parquet table ({error}).") from error
        self._videos = Path(told.get(b"timeloom.videos", b"").decode() or folder)
        self._kept = self._table["kept"].to_numpy()
        self._reasons = self._table["reasons"]
        counts = pc.value_counts(pc.list_flatten(self._reasons)).to_pylist()
        reasons = {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda entry: -entry["counts"])}
        kept = int(self._kept.sum())
        self.groups = {ALL: len(self._kept), KEPT: kept, DROPPED: len(self._kept) - kept, **reasons}

    def numbers(self, group: str) -> Sequence[int]:
        import pyarrow.compute as pc

        if group == ALL:
            return range(len(self._kept))
        if group in (KEPT, DROPPED):
            return np.flatnonzero(self._kept == (group == KEPT)).tolist()
        has = pc.equal(pc.list_flatten(self._reasons), group).to_numpy(zero_copy_only=False)
        return np.unique(pc.list_parent_indices(self._reasons).to_numpy()[has]).tolist()

    def item(self, number: int) -> Item:
        row = self._table.slice(number, 1).to_pylist()[0]
        facts = [f"{row['start_s']:.2f}–{row['end_s']:.2f} s"]
        if row.get("width") and row.get("height"):
            facts.append(f"{row['width']}×{row['height']}")
        facts += [f"{name} {row[name]:.3g}" for name in self.FACTS[3:] if row.get(name) is not None]
        title = row["caption"] or f"(no caption) {Path(row['source']).name}"
        return Item(number, title, tuple(row["reasons"] or ()), " · ".join(facts))

    def frames(self, number: int) -> tuple[Frames, float]:
        row = self._table.slice(number, 1).to_pylist()[0]
        path = self._videos / row["source"]
        return _read(path, row["start_s"], row["end_s"] - row["start_s"])


class JudgedClips(Listed):
    """The folder of `timeloom evaluate --protocol digits --output`: every clip, and what the judge found wrong."""

    kind = "evaluation"

    def __init__(self, folder: Path) -> None:
        result = _read_json(folder / "result.json")
        wrong = {failure["index"]: failure["wrong"] for failure in result.get("failures", [])}
        self._fps = float(result.get("protocol", {}).get("fps", CLIP_FPS))
        self._files = sorted((folder / "clips").glob("*.npz"))
        super().__init__([self._listed(place, path, wrong) for place, path in enumerate(self._files)])

    @staticmethod
    def _listed(place: int, path: Path, wrong: dict[int, Any]) -> Item:
        told = wrong.get(int(path.stem) if path.stem.isdecimal() else -1, {})
        seen = "; ".join(f"{name}: asked {pair['asked']}, seen {pair['seen']}" for name, pair in told.items())
        return Item(place, path.stem, tuple(f"wrong {name}" for name in told), seen)

    def item(self, number: int) -> Item:
        return replace(super().item(number), title=str(_open_npz(self._files[number])["prompt"]))

    def frames(self, number: int) -> tuple[Frames, float]:
        return _open_npz(self._files[number])["frames"], self._fps


class Previews(Listed):
    """The folder of a training run: its previews, the newest first."""

    kind = "training run"

    def __init__(self, folder: Path) -> None:
        self._files = sorted((folder / "previews").glob("*.png"), reverse=True)
        super().__init__([Item(place, _after(path), picture=True) for place, path in enumerate(self._files)])

    def frames(self, number: int) -> tuple[Frames, float]:
        return _read_picture(self._files[number])[None], CLIP_FPS


class Videos(Listed):
    """Any folder of videos and pictures, with what `timeloom generate` stored in them, or the text beside them."""

    kind = "videos"

    def __init__(self, folder: Path) -> None:
        from timeloom.data.files import STILL_SUFFIXES, VIDEO_SUFFIXES

        found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES | STILL_SUFFIXES)
        self._files = sorted(itertools.islice((path for path in found if path.is_file()), MOST_FILES))
        if not self._files:
            raise TimeloomError(f"{folder}: holds no video, no picture and no clips.parquet to browse.")
        self._stills = STILL_SUFFIXES
        super().__init__([Item(place, path.relative_to(folder).as_posix()) for place, path in enumerate(self._files)])

    def item(self, number: int) -> Item:
        from timeloom.data.captions import read_sidecar

        path = self._files[number]
        caption, facts = None, ""
        try:
            caption = read_sidecar(path)
            told = self._told(path)
            caption = told.get("prompt") or caption
            facts = " · ".join(f"{name} {told[name]}" for name in ("model", "seed", "sampler") if name in told)
        except TimeloomError as error:
            facts = str(error).removeprefix(f"{path}: ")
        name = self._items[number].title
        return Item(
            number,
            caption or name,
            facts=" · ".join(filter(None, (name if caption else "", facts))),
            picture=path.suffix.lower() in self._stills,
        )

    def frames(self, number: int) -> tuple[Frames, float]:
        path = self._files[number]
        if path.suffix.lower() in self._stills:
            return _read_picture(path)[None], CLIP_FPS
        return _read(path, 0.0, CLIP_S)

    @staticmethod
    def _told(path: Path) -> dict[str, str]:
        from timeloom.data.video import read_metadata

        return read_metadata(path)


class Shelf:
    """The folders that the page offers, opened when somebody looks, and what was drawn of them lately.

    Args:
        folders: {the name that visitors see: the folder}.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self._open: OrderedDict[int, Collection] = OrderedDict()
        self._drawn: OrderedDict[tuple[int, int], tuple[bytes, str]] = OrderedDict()
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._drawing = threading.Semaphore(2)

    @property
    def names(self) -> list[str]:
        return list(self._folders)

    def open(self, name: str) -> tuple[int, Collection]:
        """A folder as it is now, and the key by which its items are asked for. Raises as `open_collection`."""
        if name not in self._folders:
            raise unknown_name("folder", str(name)[:80], self._folders)
        collection = open_collection(self._folders[name])
        with self._lock:
            key = next(self._keys)
            self._open[key] = collection
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return key, collection

    def find(self, key: int) -> Collection | None:
        """What was opened under a key, if that was not long ago."""
        with self._lock:
            return self._open.get(key)

    def draw(self, key: int, number: int) -> tuple[bytes, str] | None:
        """`render` of an item, or None where there is none. Raises as `render`."""
        collection = self.find(key)
        if collection is None or not 0 <= number < collection.groups[ALL]:
            return None
        with self._drawing:
            drawn = self._drawn.get((key, number)) or render(collection, number)
        with self._lock:
            self._drawn[key, number] = drawn
            while len(self._drawn) > MOST_DRAWN:
                self._drawn.popitem(last=False)
        return drawn


def render(collection: Collection, number: int) -> tuple[bytes, str]:
    """What a browser shows of an item, and its media type: an mp4 of the first seconds, or a PNG.

    Raises:
        TimeloomError: its file is missing or damaged.
    """
    from timeloom.data.write import write_video

    frames, fps = collection.frames(number)
    picture = collection.item(number).picture
    suffix = ".png" if picture else ".mp4"  # a clip of one frame too: the page plays it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"item{suffix}"
        write_video(path, _fit(frames, PICTURE_PX if picture else CLIP_PX), fps)
        return path.read_bytes(), "image/png" if picture else "video/mp4"


def _fit(frames: Frames, longest: int) -> Frames:
    """Frames made smaller where a side is longer than that, their sides even."""
    from PIL import Image

    height, width = frames.shape[1:3]
    scale = min(1.0, longest / max(height, width))
    size = max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
    if size == (width, height):
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])


def _read(path: Path, start_s: float, length_s: float) -> tuple[Frames, float]:
    """The first seconds of a span, at a steady rate; a span of a moment with all its frames."""
    from timeloom.data.video import probe_video, read_video

    info = probe_video(path)
    shown_s = min(length_s, info.duration_s - start_s, CLIP_S)
    fps = CLIP_FPS if shown_s >= MOMENT_S else max(CLIP_FPS, info.fps)
    count = max(1, int(shown_s * fps + 1e-3))
    return read_video(path, count, fps, start_s), fps


def _read_picture(path: Path) -> Frames:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise TimeloomError(f"{path}: cannot be read as a picture ({error}).") from error


def _after(path: Path) -> str:
    return f"after {int(path.stem):,} samples" if path.stem.isdecimal() else path.stem


def _open_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: stored[name] for name in ("prompt", "frames")}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise TimeloomError(f"{path}: is damaged ({error}).") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TimeloomError(f"{path}: cannot be read as JSON ({error}).") from error
    return content if isinstance(content, dict) else {}
