"""Files that are written piece by piece, and appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from timeloom.errors import TimeloomError


@contextlib.contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write to, or by its `name`, that takes the place of `path` at the end; after an error nothing is left.

    Args:
        durable: wait until it is on the disk; needless where a file that a power cut damaged is noticed and made again.

    Raises: OSError where the folder or the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    os.close(descriptor)  # a file made of a descriptor would not know its name
    try:
        with open(unfinished, "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(unfinished, _usual_mode())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """`whole_file` for a command's own product: a refusal is a sentence.

    Raises: TimeloomError naming the path where the folder or the disk refuses.
    """
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be written ({error.strerror}).") from error


def open_to_others(folder: Path) -> None:
    """Give files below a folder the permissions of new ones: safetensors makes its own for the owner alone."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(_usual_mode())


def _usual_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
