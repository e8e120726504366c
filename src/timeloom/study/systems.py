"""The systems under study: folders of videos made from the same prompts, matched by prompt or by index."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timeloom.data.captions import read_captions, read_sidecar, read_text
from timeloom.data.files import VIDEO_SUFFIXES
from timeloom.data.folder import CAPTION_FILES
from timeloom.data.video import read_metadata
from timeloom.errors import TimeloomError

MOST_SYSTEMS = 20
LONGEST_NAME = 60
NAMED_IN_ERRORS = 5
UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
Key = tuple[str, int]
"""A prompt without case and spacing, and which of its videos; or an index as digits, and 0."""


@dataclass(frozen=True)
class Video:
    """A file, and what is known about what it shows."""

    path: Path
    prompt: str | None
    index: int | None
    """The number that its name begins with."""


@dataclass(frozen=True)
class Matched:
    """One prompt, and its video by each system; None where a system has none."""

    prompt: str | None
    videos: tuple[Path | None, ...]


def parse_systems(words: Sequence[str]) -> dict[str, Path]:
    """Systems from words NAME=FOLDER; a folder alone gives its name.

    Raises:
        TimeloomError: fewer than two, no such folder, or two of the same name.
    """
    systems: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        path = Path(folder if equals else word).expanduser()
        name = " ".join((name if equals else path.resolve().name).split())
        if not path.is_dir():
            raise TimeloomError(f"--systems {word}: there is no folder {path}.")
        if not 1 <= len(name) <= LONGEST_NAME:
            raise TimeloomError(f"--systems {word}: a name has 1 to {LONGEST_NAME} characters.")
        if name.casefold() in (known.casefold() for known in systems):
            raise TimeloomError(f"--systems: two systems have the same name {name!r}; write NAME=FOLDER.")
        systems[name] = path
    if not 2 <= len(systems) <= MOST_SYSTEMS:
        raise TimeloomError(
            f"A study compares 2 to {MOST_SYSTEMS} systems, not {len(systems)}: --systems NAME=FOLDER …"
        )
    return systems


def parse_parameters(words: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Numbers of parameters from words NAME=NUMBER; 1.5B, 865M and 2e9 are numbers.

    Raises:
        TimeloomError: an unknown system, or no positive number.
    """
    sizes = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if name not in names:
            raise TimeloomError(f"--parameters {word}: no system has the name {name!r}; write NAME=NUMBER.")
        said = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d{1,2})?)([KMB]?)", number, re.IGNORECASE)
        size = float(said[1]) * UNITS.get(said[2].upper(), 1) if said else 0.0
        if size <= 0:
            raise TimeloomError(f"--parameters {word}: {number!r} is no number of parameters such as 1.5B or 865M.")
        sizes[name] = size
    return sizes


def read_lines(path: Path) -> list[str]:
    """Prompts, one a line; blank lines do not count, as in `timeloom generate --prompts`. Raises TimeloomError."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_folder(folder: Path) -> list[Video]:
    """The videos below `folder`, by path, with prompts from a caption file, a .txt beside them, or their own metadata.

    Raises:
        TimeloomError: there are none, or a caption file is wrong.
    """
    listed: dict[Path, str] = {}
    table = next((folder / name for name in CAPTION_FILES if (folder / name).is_file()), None)
    for caption in read_captions(table) if table else []:
        listed.setdefault((folder / caption.file).resolve(), caption.text)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not paths:
        raise TimeloomError(f"{folder}: holds no video.")
    videos = []
    for path in paths:
        prompt = listed.get(path.resolve()) or read_sidecar(path) or _prompt_inside(path)
        number = re.match(r"\d{1,9}", path.name)
        videos.append(Video(path, " ".join(prompt.split()) if prompt else None, int(number[0]) if number else None))
    return videos


def _prompt_inside(path: Path) -> str | None:
    try:
        return read_metadata(path).get("prompt")
    except TimeloomError:
        return None  # unplayable: said with all others when it is to be encoded


def match(
    folders: dict[str, list[Video]], by: str = "auto", prompts: Sequence[str] | None = None, allow_missing: bool = False
) -> tuple[list[Matched], list[str]]:
    """Videos of the same prompt, in the order of the first folder, and a line for each one that is missing.

    `by` is prompt, index, or auto: by prompt where every file has one, else by index. `prompts` gives the prompt of
    index i. With several videos of one prompt in a folder, its first goes with the others' first. With `allow_missing`
    a prompt needs two systems only.

    Raises:
        TimeloomError: files without what they are matched by, two of one index in a folder, two prompts for one index,
            missing videos that are not allowed, or nothing in common.
    """
    if by == "auto":
        by = "prompt" if all(video.prompt for videos in folders.values() for video in videos) else "index"
    keyed = {
        name: _by_prompt(name, videos) if by == "prompt" else _by_index(name, videos)
        for name, videos in folders.items()
    }
    keys = list(dict.fromkeys(key for videos in keyed.values() for key in videos))
    matched, missing = [], []
    for key in keys:
        films = [videos.get(key) for videos in keyed.values()]
        absent = [name for name, film in zip(keyed, films, strict=True) if film is None]
        shown = key[0] + (f" (video {key[1] + 1})" if key[1] else "")
        missing += [f"{name} has no video of {by} {shown!r}" for name in absent]
        if len(keyed) - len(absent) >= 2:
            matched.append(
                Matched(
                    _one_prompt(key, films, by, prompts),
                    tuple(film.path if film is not None else None for film in films),
                )
            )
    if missing and not allow_missing:
        more = f", and {len(missing) - NAMED_IN_ERRORS} more" if len(missing) > NAMED_IN_ERRORS else ""
        raise TimeloomError(
            f"The folders do not hold the same videos: {'; '.join(missing[:NAMED_IN_ERRORS])}{more}. "
            "Add them, or leave such prompts out by --allow-missing."
        )
    if not matched:
        raise TimeloomError(f"No two folders have a {by} in common.")
    return matched, missing


def _by_prompt(name: str, videos: list[Video]) -> dict[Key, Video]:
    seen: Counter[str] = Counter()
    keyed = {}
    for video in videos:
        if video.prompt is None:
            raise TimeloomError(
                f"{name}: the prompt of {video.path} is not known. Match by index, or write captions.csv."
            )
        text = video.prompt.casefold()
        keyed[text, seen[text]] = video
        seen[text] += 1
    return keyed


def _by_index(name: str, videos: list[Video]) -> dict[Key, Video]:
    keyed: dict[Key, Video] = {}
    for video in videos:
        if video.index is None:
            raise TimeloomError(
                f"{name}: {video.path.name} begins with no number to match it by, and not every file has a prompt."
            )
        key = (str(video.index), 0)
        if key in keyed:
            raise TimeloomError(f"{name}: {keyed[key].path.name} and {video.path.name} have the same number.")
        keyed[key] = video
    return keyed


def _one_prompt(key: Key, films: Sequence[Video | None], by: str, prompts: Sequence[str] | None) -> str | None:
    known: dict[str, str] = {}  # the first spelling counts
    for film in films:
        if film is not None and film.prompt:
            known.setdefault(film.prompt.casefold(), film.prompt)
    if by == "index" and prompts is not None:
        index = int(key[0])
        if index >= len(prompts):
            raise TimeloomError(f"--prompts has {len(prompts)} lines, and there is a video of index {index}.")
        text = " ".join(prompts[index].split())
        known.setdefault(text.casefold(), text)
    if len(known) > 1:
        one, other, *_ = known.values()
        raise TimeloomError(f"Videos of index {key[0]} have different prompts: {one!r} and {other!r}.")
    return next(iter(known.values()), None)
