"""A folder belongs to one evaluation: what was begun goes on, and what is of something else is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError

LABEL, RESULT = "protocol.json", "result.json"


def claim(folder: Path, wanted: dict[str, Any], clips: Iterable[Path], overwrite: bool = False) -> None:
    """Write down what the folder is for, or find that it is for that already.

    Args:
        folder: made if it is not there.
        wanted: all that its clips depend on, as JSON has it.
        clips: those that are there.
        overwrite: throw them away.

    Raises:
        TimeloomError: the folder holds the evaluation of something else.
    """
    label = folder / LABEL
    old = list(clips)
    known = json.loads(label.read_text(encoding="utf-8")) if label.is_file() else {}
    if overwrite:
        for path in old:
            path.unlink()
    elif (old or known) and known != wanted:
        differ = ", ".join(name for name in {**wanted, **known} if known.get(name) != wanted.get(name))
        raise TimeloomError(
            f"{folder} holds the evaluation of something else (different: {differ}). "
            "Choose another --output, or --overwrite to start anew."
        )
    replace_file(label, json.dumps(wanted, indent=2).encode())


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write result.json, whole or not at all."""
    replace_file(folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False).encode())
