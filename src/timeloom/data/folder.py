"""A folder of captioned videos as a source of clips."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from timeloom.data.captions import read_captions, read_sidecar
from timeloom.data.clip import Clip, Frames, Ledger, Window
from timeloom.data.video import probe_video, read_video
from timeloom.errors import TimeloomError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif", ".webp")
)
CAPTION_FILES = tuple(f"{stem}.{kind}" for stem in ("captions", "metadata", "index") for kind in ("csv", "jsonl"))
MANY = 200  # files; probing more takes some seconds


class FolderSource:
    """Every captioned video below a folder that is long enough for `window`, in the order of their paths.

    A caption comes from `captions` (.csv or .jsonl, paths relative to `folder`), else from the first of CAPTION_FILES
    that lies in the folder; where that has none for a video, from the `.txt` beside it. A clip's key is its path in
    the folder.

    `ledger` tells what was left out: no caption, listed but missing, unreadable, shorter than the window.

    Raises: TimeloomError where the folder or the caption file is missing or wrong, or no clip is left.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        captions: str | os.PathLike[str] | None = None,
        window: Window | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.ledger = Ledger()
        if not self.folder.is_dir():
            raise TimeloomError(f"{self.folder}: there is no such folder of videos.")
        listed = self._listed(Path(captions) if captions is not None else self._caption_file())
        videos = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        )
        found = set(videos)
        for key in listed:
            if key not in found:
                self._drop(key, "listed with a caption, but no such video")
        quiet = len(videos) < MANY or not sys.stderr.isatty()
        bar = track(videos, "Looking at videos", console=Console(stderr=True), transient=True, disable=quiet)
        clips = [self._clip(key, listed.get(key), window) for key in bar]
        self._clips = [clip for clip in clips if clip is not None]
        if not self._clips:
            raise TimeloomError(f"{self.folder}: no clip can be used: {self.ledger.summary()}.")

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Clip:
        return self._clips[index]

    def _caption_file(self) -> Path | None:
        return next((self.folder / name for name in CAPTION_FILES if (self.folder / name).is_file()), None)

    def _listed(self, path: Path | None) -> dict[str, str]:
        """Captions by key. Of several for one video the first counts."""
        listed: dict[str, str] = {}
        for caption in read_captions(path) if path is not None else []:
            key = os.path.normpath(os.path.relpath(self.folder / caption.file, self.folder)).replace(os.sep, "/")
            if key in listed:
                self._drop(f"{path}, line {caption.line}", "further caption of the same video")
            else:
                listed[key] = caption.text
        return listed

    def _drop(self, item: str, reason: str) -> None:
        """Leave out an `item` that is not among the videos of the folder."""
        self.ledger.found += 1
        self.ledger.drop(item, reason)

    def _clip(self, key: str, caption: str | None, window: Window | None) -> Clip | None:
        self.ledger.found += 1
        path = self.folder / key
        try:
            texts = [text for text in (caption, read_sidecar(path)) if text is not None]
            caption = next(filter(None, texts), None)
            if caption is None:
                self.ledger.drop(key, "empty caption" if texts else "no caption")
                return None
            info = probe_video(path)
        except TimeloomError as error:
            self.ledger.drop(key, f"unreadable: {str(error).removeprefix(f'{path}: ').rstrip('.')}")
            return None
        if window is not None and _last_s(window) >= info.duration_s:
            self.ledger.drop(key, "shorter than the window")
            return None

        draw = partial(_draw, path, info.duration_s)
        return Clip(key, caption, str(path), info.width, info.height, info.fps, info.duration_s, draw)


def _draw(path: Path, duration_s: float, window: Window, start: float) -> Frames:
    """The window of the video at `path` that lies at `start` in [0, 1] between the first and the last possible one."""
    start_s = start * max(0.0, duration_s - window.duration_s)
    return read_video(path, window.num_frames, window.fps, start_s, window.height, window.width)


def _last_s(window: Window) -> float:
    """When the window's last frame is shown."""
    return (window.num_frames - 1) / window.fps
