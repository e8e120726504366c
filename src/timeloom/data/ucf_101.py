"""UCF-101: `classInd.txt` ("1 ApplyEyeMakeup") and the lists `trainlist01.txt`, `testlist01.txt` of `Class/v_*.avi`.

The caption comes from the class, as in the papers' protocol: "Fencing" is "A person fencing". Clips of one group
(`_g08_`) show the same people and place, so they stay on one side of a split.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from timeloom.data.captions import read_text
from timeloom.data.clip import Ledger
from timeloom.data.files import first_there
from timeloom.data.table_builder import TEXT, TableBuilder
from timeloom.errors import TimeloomError, unknown_name

LISTS = {"train": ("trainlist01.txt",), "test": ("testlist01.txt",), "all": ("trainlist01.txt", "testlist01.txt")}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def caption_of_class(name: str) -> str:
    """ "PlayingGuitar" as "A person playing guitar"."""
    return "A person " + " ".join(_WORD.findall(name)).lower()


def read_ucf_101(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """Split 1's train list, its test list, or, unless said, all clips: Latent-Shift is finetuned on both."""
    split = split or "all"
    if split not in LISTS:
        raise unknown_name("split of UCF-101", split, LISTS)
    numbered = [line.split() for line in read_text(path / "classInd.txt").splitlines() if line.strip()]
    classes = {words[-1] for words in numbered}
    if not all(len(words) == 2 for words in numbered):
        raise TimeloomError(f"{path / 'classInd.txt'}: each line must be a number and a class, such as 27 Fencing.")
    builder = TableBuilder({"group": TEXT, "file": TEXT, "flat": TEXT, "caption": TEXT})
    for name in LISTS[split]:
        for line in filter(str.strip, read_text(path / name).splitlines()):
            file = line.split()[0]
            action, _, clip = file.rpartition("/")
            if action not in classes:
                builder.refuse(file, "of a class that classInd.txt does not name")
                continue
            group = re.sub(r"_c\d+\.\w+$", "", file)
            builder.add(group=group, file=file, flat=clip, caption=caption_of_class(action))
    table, ledger = builder.finish()
    _, files, there = first_there(videos, [table["file"], table["flat"]])
    columns = {"group": table["group"], "file": files, "caption": table["caption"], "there": pa.array(there)}
    return pa.table(columns), ledger
