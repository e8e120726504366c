"""study.json: what is shown, to how many, in which pairs. The systems' names are in it, and never leave the server."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from timeloom.data.json_file import read_json
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError, unknown_name
from timeloom.schema import Schema, check
from timeloom.study.clips import hash_clip
from timeloom.study.questions import Question

DESIGN, MEDIA, VOTES, LINKS = "study.json", "media", "votes.sqlite", "links.csv"
"""What a study's folder holds."""
Clip = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class System(Schema):
    """One system."""

    name: str
    parameters: float | None = None
    """How many it has."""


class Pair(Schema):
    """Two clips of one prompt. Which of them a rater sees on the left is drawn for each rater."""

    prompt: int
    systems: tuple[int, int]
    clips: tuple[Clip, Clip]
    """Names in the folder of clips, without suffix."""
    attention: bool = False
    """Whether the second is the first one destroyed, so that the answer is known."""


class Study(Schema):
    """All of study.json."""

    format: int = Field(default=1, ge=1, le=1)
    title: str = "Which video is better?"
    seed: int
    questions: tuple[Question, ...] = Field(min_length=1)
    systems: tuple[System, ...] = Field(min_length=2)
    reference: int | None = None
    """The system that all others are compared with; None: each with each."""
    prompts: tuple[str | None, ...]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    raters_per_pair: int = Field(ge=1)
    pairs_per_rater: int = Field(ge=1)
    """Without attention pairs."""
    attention_per_rater: int = Field(ge=0)
    links: int = Field(ge=1)
    left_out: tuple[str, ...] = ()
    """What was missing from the folders."""

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """Pairs of systems, the reference first."""
        return sorted({pair.systems for pair in self.pairs if not pair.attention})

    @property
    def clips(self) -> set[str]:
        return {clip for pair in self.pairs for clip in pair.clips}

    @property
    def fingerprint(self) -> str:
        """Changes with anything that a vote depends on."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_study(folder: Path) -> Study:
    """The study in `folder`, its clips checked against their names.

    Raises:
        TimeloomError: there is none, it is damaged, or a clip is missing or was changed.
    """
    path = folder / DESIGN
    if not path.is_file():
        raise TimeloomError(
            f"{folder}: is no study (no {DESIGN}). Make one by: timeloom study create {folder} --systems …"
        )
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise TimeloomError(f"{path}: a JSON object is expected here.")
    study = check(Study, raw, path)
    for index, pair in enumerate(study.pairs):
        if max(pair.systems) >= len(study.systems) or not 0 <= pair.prompt < len(study.prompts):
            raise TimeloomError(f"{path}: pairs.{index} is about a system or prompt that is not in the study.")
    for clip in sorted(study.clips):
        file = folder / MEDIA / f"{clip}.mp4"
        if not file.is_file() or hash_clip(file) != clip:
            raise TimeloomError(f"{file}: is {'changed' if file.is_file() else 'missing'}; make the study again.")
    return study


def write_study(study: Study, folder: Path) -> None:
    """Write study.json, whole or not at all."""
    replace_file(folder / DESIGN, json.dumps(study.model_dump(), indent=1, ensure_ascii=False).encode())


def choose_comparisons(names: Sequence[str], reference: str | None) -> list[tuple[int, int]]:
    """Which systems are compared: each with each, or all with the reference, which comes first.

    Raises:
        TimeloomError: no system has the reference's name.
    """
    if reference is None:
        return list(itertools.combinations(range(len(names)), 2))
    if reference not in names:
        raise unknown_name("system in --reference:", reference, names)
    first = names.index(reference)
    return [(first, other) for other in range(len(names)) if other != first]


def sample_prompts(available: Iterable[int], count: int | None, seed: str) -> list[int]:
    """All of the prompts, or `count` of them, drawn by `seed`; in order."""
    prompts = list(available)
    return prompts if count is None or count >= len(prompts) else sorted(random.Random(seed).sample(prompts, count))
