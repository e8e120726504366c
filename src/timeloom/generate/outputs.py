"""Where generated clips go: one file, or a folder that goes on where it stopped. All is checked before any sampling."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timeloom.errors import TimeloomError, unknown_name
from timeloom.generate.prompts import slug

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Job:
    """One clip to make, and its file."""

    prompt: str
    seed: int
    path: Path


@dataclass(frozen=True)
class Plan:
    """What is to be made; `kept` counts the files that were there already."""

    jobs: list[Job]
    kept: int = 0


def plan_file(prompt: str, seed: int, output: Path, overwrite: bool) -> Plan:
    """One clip in one file. Raises TimeloomError where the file exists, or its suffix is of no known format."""
    require_free(output, overwrite, SUFFIXES)
    return Plan([Job(prompt, seed, output)])


def plan_folder(
    prompts: Sequence[str], num_samples: int, seed: int, folder: Path, suffix: str, overwrite: bool
) -> Plan:
    """`num_samples` clips of each prompt, in files 000000-the-prompt.mp4, ...; clip i gets the seed `seed` + i.

    Files that exist are kept, and their clips are not made again, unless `overwrite`: so the same command goes on where
    it stopped.
    """
    if folder.suffix.lower() in SUFFIXES and not folder.is_dir():
        raise TimeloomError(f"Several clips need a folder, and --output {folder} is a file name.")
    require_writable(folder)
    texts = [text for text in prompts for _ in range(num_samples)]
    jobs = [Job(text, seed + i, folder / f"{i:06d}-{slug(text)}{suffix}") for i, text in enumerate(texts)]
    there = set() if overwrite else {entry.name for entry in os.scandir(folder)}
    wanted = [job for job in jobs if job.path.name not in there]
    return Plan(wanted, kept=len(jobs) - len(wanted))


def require_free(path: Path, overwrite: bool, suffixes: Sequence[str]) -> None:
    """Raise TimeloomError where `path` has none of the `suffixes`, cannot be written, or exists and is to be kept."""
    from timeloom.data.write import check_output

    if path.suffix.lower() not in suffixes:
        raise unknown_name(f"file type of {path}:", path.suffix, suffixes)
    check_output(path, overwrite)
    require_writable(path.parent)


def require_rate(path: Path, fps: float) -> None:
    """Raise TimeloomError where the format of `path` cannot be played at `fps` frames a second."""
    from timeloom.data.write import MAX_FPS

    most = MAX_FPS[path.suffix.lower()]
    if fps > most:
        raise TimeloomError(f"{path.suffix} holds at most {most} frames a second, not {fps:g}.")


def require_writable(folder: Path) -> None:
    """Make the folder if need be, and try a nameless file in it. Raises TimeloomError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TimeloomError(f"Cannot write to the folder {folder}: {error.strerror}.") from error
