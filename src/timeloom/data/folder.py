"""A folder of captioned videos, or of captioned pictures, as a source of clips."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from timeloom.data.captions import read_captions, read_sidecar
from timeloom.data.clip import Window
from timeloom.data.files import VIDEO_SUFFIXES
from timeloom.data.table import Scan, TableSource
from timeloom.data.table_builder import TEXT, TableBuilder
from timeloom.errors import TimeloomError

CAPTION_FILES = tuple(f"{stem}.{kind}" for stem in ("captions", "metadata", "index") for kind in ("csv", "jsonl"))
EVERY = 2**62


class FolderSource(TableSource):
    """Every captioned video below a folder that is long enough for `window`, in the order of their paths.

    A caption comes from `captions` (.csv or .jsonl, paths relative to `folder`), else from the first of CAPTION_FILES
    that lies in the folder; where that has none for a video, from the `.txt` beside it. A clip's key is its path in
    the folder. Every file is opened, however many there are. `suffixes` says which files count.

    `ledger` tells what was left out: no caption, listed but missing, unreadable, shorter than the window.

    Raises: TimeloomError where the folder or the caption file is missing or wrong, or no clip is left.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        captions: str | os.PathLike[str] | None = None,
        window: Window | None = None,
        scan: Scan | None = None,
        suffixes: Collection[str] = VIDEO_SUFFIXES,
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise TimeloomError(f"{self.folder}: there is no such folder of clips.")
        self._rows = TableBuilder({"file": TEXT, "caption": TEXT})
        listed = self._listed(Path(captions) if captions is not None else self._caption_file())
        files = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.suffix.lower() in suffixes and path.is_file()
        )
        found = set(files)
        for key in listed:
            if key not in found and Path(key).suffix.lower() in suffixes:
                self._rows.refuse(key, "listed with a caption, but no such video")
        for key in files:
            self._add(key, listed.get(key))
        table, ledger = self._rows.finish()
        scan = replace(scan or Scan(window), probe_up_to=EVERY)
        super().__init__(str(self.folder), table, ledger, scan, self.folder)

    def _caption_file(self) -> Path | None:
        return next((self.folder / name for name in CAPTION_FILES if (self.folder / name).is_file()), None)

    def _listed(self, path: Path | None) -> dict[str, str]:
        """Captions by key. Of several for one video the first counts."""
        listed: dict[str, str] = {}
        for caption in read_captions(path) if path is not None else []:
            key = os.path.normpath(os.path.relpath(self.folder / caption.file, self.folder)).replace(os.sep, "/")
            if key in listed:
                self._rows.refuse(f"{path}, line {caption.line}", "further caption of the same video")
            else:
                listed[key] = caption.text
        return listed

    def _add(self, key: str, caption: str | None) -> None:
        try:
            texts = [text for text in (caption, read_sidecar(self.folder / key)) if text is not None]
        except TimeloomError as error:
            self._rows.refuse(key, f"unreadable: {str(error).rstrip('.')}")
            return
        caption = next(filter(None, texts), None)
        if caption is None:
            self._rows.refuse(key, "empty caption" if texts else "no caption")
        else:
            self._rows.add(file=key, caption=caption)
