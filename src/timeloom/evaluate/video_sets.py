"""Folders of videos: which are measured, what each was asked to show, and which are not measured and why.

Nothing here decides by the order of files: names and contents do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from timeloom.data.captions import read_captions, read_sidecar
from timeloom.data.files import VIDEO_SUFFIXES
from timeloom.data.folder import CAPTION_FILES
from timeloom.data.video import probe_video, read_metadata
from timeloom.errors import TimeloomError
from timeloom.evaluate.content_hash import content_hash
from timeloom.evaluate.prompt_sets import Prompt, drawn

Done: TypeAlias = Callable[[int], None]
"""Hears how many files more were looked at."""

THREADS = 4
_VBENCH = re.compile(r"(?P<prompt>.+)-\d+")


@dataclass
class VideoSet:
    """Videos under names, and what is known of them."""

    label: str
    """What errors and reports call the set."""
    files: dict[str, Path]
    """By name, relative to their folder."""
    texts: dict[str, str] = field(default_factory=dict)
    """What was asked for."""
    missing: dict[str, str] = field(default_factory=dict)
    """{name: why} of what belongs to the set and is not measured."""
    failed: dict[str, str] = field(default_factory=dict)
    """{name: why} of files that are there and that a network could not look at."""
    left_out: dict[str, str] = field(default_factory=dict)
    """{name: why} of files that do not belong to the set."""
    shapes: Counter[str] = field(default_factory=Counter)
    """How many videos have which size, length and rate."""

    @property
    def asked(self) -> int:
        """How many there should be."""
        return len(self.files) + len(self.missing)

    def part(self, rank: int, world: int) -> VideoSet:
        """What one of `world` processes looks at."""
        files = dict(list(self.files.items())[rank::world])
        return self if world == 1 else VideoSet(self.label, files, self.texts)

    def lose(self, names: Mapping[str, str]) -> None:
        """These are not measured, for these reasons."""
        for name, why in names.items():
            self.files.pop(name, None)
            self.missing[name] = why


def find_videos(folder: Path, label: str) -> VideoSet:
    """Every video in a folder and below. Raises TimeloomError where there is none."""
    root = folder.expanduser()
    files = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    }
    if not files:
        raise TimeloomError(f"{folder}: there is no video in it; known are {', '.join(sorted(VIDEO_SUFFIXES))}.")
    return VideoSet(label, files)


def listed_videos(folder: Path, names: Sequence[str], label: str) -> VideoSet:
    """The videos of a list, relative to a folder; those that are not there are missing.

    A video may have another of the known suffixes than its list says.
    """
    there = find_videos(folder, label)
    stems = {name.rpartition(".")[0]: name for name in there.files}
    found, missing = {}, {}
    for name in names:
        actual = name if name in there.files else stems.get(name.rpartition(".")[0])
        if actual is None:
            missing[name] = "no such file"
        else:
            found[name] = there.files[actual]
    used = set(found.values())
    left_out = {name: "not in the list" for name, path in there.files.items() if path not in used}
    return VideoSet(label, found, missing=missing, left_out=left_out)


def add_texts(videos: VideoSet, folder: Path) -> None:
    """Find out what each video was asked to show.

    From the first that knows: a caption file in the folder, the .txt beside the video, what Timeloom wrote into the
    file, its name as VBench has it (`{prompt}-0.mp4`).
    """
    root = folder.expanduser()
    listed = next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)
    captions = {caption.file: caption.text for caption in read_captions(listed)} if listed else {}
    for name, path in videos.files.items():
        text = captions.get(name) or read_sidecar(path) or _own_text(path)
        if not text and (named := _VBENCH.fullmatch(path.stem)) is not None:
            text = named["prompt"]
        if text:
            videos.texts[name] = text


def _own_text(path: Path) -> str:
    try:
        return read_metadata(path).get("prompt", "")
    except TimeloomError:
        return ""  # unreadable: `inspect` says why


def match_prompts(videos: VideoSet, prompts: Iterable[Prompt]) -> VideoSet:
    """Videos made elsewhere as the answers to prompts: one video for each, more are left out, fewer are missing.

    Where a prompt has more videos than it is asked, those first in order of their names are taken; none is ranked.
    """
    waiting: dict[str, list[str]] = {}
    for name in sorted(videos.files):
        if name in videos.texts:
            waiting.setdefault(plain(videos.texts[name]), []).append(name)
    matched = VideoSet(videos.label, {}, missing=dict(videos.missing))
    for prompt in prompts:
        names = waiting.get(plain(prompt.text), [])
        if names:
            name = names.pop(0)
            matched.files[name], matched.texts[name] = videos.files[name], prompt.text
        else:
            matched.missing[f"prompt {prompt.index}: {prompt.text}"] = "no video was made for it"
    for name in videos.files:
        if name not in matched.files:
            known = name in videos.texts
            matched.left_out[name] = "its prompt is not asked, or not so often" if known else "its prompt is not known"
    return matched


def plain(text: str) -> str:
    """A prompt as file names keep it: without a slash, which they cannot hold, and with single blanks."""
    return " ".join(text.replace("/", " ").split()).casefold().rstrip(". ")


def take(videos: VideoSet, count: int | None, seed: int) -> None:
    """Keep `count` of more videos, chosen by the seed and their names; the others are left out."""
    if count is None or len(videos.files) <= count:
        return
    kept = set(drawn(list(videos.files), list(videos.files), count, seed))
    for name in [name for name in videos.files if name not in kept]:
        videos.left_out[name] = f"one more than the {count} that the protocol takes"
        del videos.files[name]


def drop_doubles(videos: VideoSet, done: Done = lambda count: None) -> None:
    """Files that hold what another holds to the byte are one video: the first by name stays, others are missing."""
    first: dict[str, str] = {}
    lost = {}
    for name in sorted(videos.files):
        done(1)
        try:
            digest = content_hash(videos.files[name])
        except TimeloomError as error:
            lost[name] = reason(error, videos.files[name])
            continue
        if digest in first:
            lost[name] = f"the same file as {first[digest]}"
        else:
            first[digest] = name
    videos.lose(lost)


def inspect(videos: VideoSet, done: Done = lambda count: None) -> None:
    """Open each file: count sizes, lengths and rates; what cannot be opened is missing."""
    names = list(videos.files)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, shape in zip(names, pool.map(_shape, videos.files.values()), strict=True):
            done(1)
            if isinstance(shape, TimeloomError):
                videos.lose({name: reason(shape, videos.files[name])})
            else:
                videos.shapes[shape] += 1


def reason(error: TimeloomError | str, path: Path) -> str:
    """What was wrong with a file, without its path, which is nobody else's business."""
    return str(error).removeprefix(f"{path}: ")


def _shape(path: Path) -> str | TimeloomError:
    try:
        info = probe_video(path)
    except TimeloomError as error:
        return error
    length = f"{info.num_frames} frames" if info.num_frames else f"{info.duration_s:.2f} s"
    return f"{info.width}x{info.height}, {length}, {info.fps:g} fps"
