"""The work folder: what was found out about each source, kept under the hash of its content.

    work/names/…     the content hash of a file that was seen, by path, size and time of change
    work/scans/…     a zip a source: scan.json, central frames 000000.jpg, and clips 000000.mp4 where they are encoded
    work/texts/…     captions and similarities of a source's clips, by the model that gave them

Every file appears whole or not at all, so many processes and machines may fill one folder, and what a killed one had
finished is there for the next. Failures are not kept: the next run tries again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from timeloom.curate.scene import Scan, Scene
from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError

FORMAT = 1  # of the files and of what a scan finds; another number makes them anew
SCAN, TIMES = "scan.json", "times.json"
_FRACTIONS = ("time_base", "pixel_aspect")


def digest(*parts: Any) -> str:
    """A short name for settings, the same on every machine."""
    return hashlib.blake2b(repr((FORMAT, *parts)).encode(), digest_size=8).hexdigest()


@dataclass
class Texts:
    """What a model gave to clips of one source."""

    values: dict[str, Any]
    """By clip."""
    seconds: float
    """What it took, on the clock."""


class Store:
    """The work folder of one way to scan. `settings` is all that decides what a scan finds."""

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder, self._settings = folder, digest(settings)

    def name_of(self, path: Path) -> str:
        """The content hash of a file: 32 hexadecimal digits. Raises OSError where it cannot be read."""
        stat = path.stat()
        identity = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16)
        identity.update(f" {stat.st_size} {stat.st_mtime_ns}".encode())
        name = identity.hexdigest()
        known = self.folder / "names" / name[:2] / name
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if len(content := known.read_text("ascii")) == 32:
                return content
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        with whole_file(known) as target:
            target.write(found.encode())
        return found

    def scan_path(self, source_id: str) -> Path:
        """Where the scan of a source is kept."""
        return self.folder / "scans" / self._settings / source_id[:2] / f"{source_id}.zip"

    def has_scan(self, source_id: str) -> bool:
        """Whether the scan of a source is there, and whole."""
        try:
            with self.reading(source_id) as kept:
                kept.scan()
        except TimeloomError:
            return False
        return True

    @contextlib.contextmanager
    def writing(self, source_id: str) -> Iterator[ScanFile]:
        """A scan to fill; it is kept when the block ends without an error."""
        with whole_file(self.scan_path(source_id)) as file, zipfile.ZipFile(file, "w") as archive:
            yield ScanFile(archive)

    @contextlib.contextmanager
    def reading(self, source_id: str) -> Iterator[ScanFile]:
        """A kept scan. Raises TimeloomError where there is none, or it is damaged."""
        path = self.scan_path(source_id)
        try:
            with zipfile.ZipFile(path) as archive:
                yield ScanFile(archive)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise TimeloomError(f"{path}: is damaged ({error}); remove it and run the same command again.") from error

    def texts(self, kind: str, model: str, source_id: str) -> Texts:
        """What `model` gave to the clips of a source, by clip; empty where it was not asked."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._text_path(kind, model, source_id).read_text("utf-8"))
            return Texts(dict(found["values"]), float(found["seconds"]))
        return Texts({}, 0.0)

    def keep_texts(self, kind: str, model: str, source_id: str, texts: Texts) -> None:
        """Keep what `model` gave. Raises OSError."""
        with whole_file(self._text_path(kind, model, source_id)) as file:
            file.write(json.dumps(asdict(texts), ensure_ascii=False).encode())

    def _text_path(self, kind: str, model: str, source_id: str) -> Path:
        return self.folder / "texts" / digest(kind, model, self._settings) / source_id[:2] / f"{source_id}.json"


class ScanFile:
    """The scan of one source, its pictures and clips, in a zip. Scenes are numbered from 0."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def _put(self, name: str, content: bytes) -> None:
        self._archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)

    def put_clip(self, start_pts: int, content: bytes) -> None:
        """Keep the mp4 of the scene that starts at `start_pts`; its number is not known yet."""
        self._put(f"{start_pts}.mp4", content)

    def put_scan(self, found: Scan, cpu_s: float) -> None:
        """Keep what was found, and what it cost in CPU seconds."""
        facts = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "scenes"}
        facts.update({name: str(facts[name]) for name in _FRACTIONS})
        scenes = []
        for number, scene in enumerate(found.scenes):
            self._put(f"{number:06}.jpg", scene.central_jpeg)
            scenes.append({**asdict(scene), "central_jpeg": None})
        self._put(SCAN, json.dumps({**facts, "scenes": scenes}).encode())
        self._put(TIMES, json.dumps({"cpu_s": cpu_s}).encode())

    def scan(self) -> Scan:
        """What was found, without the pictures."""
        facts = json.loads(self._archive.read(SCAN))
        facts.update({name: Fraction(facts[name]) for name in _FRACTIONS})
        scenes = tuple(Scene(**{**scene, "central_jpeg": b""}) for scene in facts["scenes"])
        return Scan(**{**facts, "scenes": scenes, "warnings": tuple(facts["warnings"])})

    def cpu_s(self) -> float:
        """CPU seconds that the scan took."""
        return float(json.loads(self._archive.read(TIMES))["cpu_s"])

    def picture(self, number: int) -> bytes:
        """The central frame of a scene, JPEG."""
        return self._archive.read(f"{number:06}.jpg")

    def clip(self, start_pts: int) -> bytes | None:
        """The mp4 of the scene that starts there; None where none was encoded."""
        try:
            return self._archive.read(f"{start_pts}.mp4")
        except KeyError:
            return None
