"""What tells the content of a file from all others, wherever it lies and whatever it is called."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from timeloom.errors import TimeloomError


def content_hash(path: Path) -> str:
    """SHA-256 of what a file holds, computed once while it stays as it is. Raises TimeloomError."""
    try:
        stat = path.stat()
        return _hash(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be read ({error.strerror}).") from error


@functools.lru_cache(maxsize=1 << 18)
def _hash(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
