"""From folders of videos to a study: matched, sampled, encoded again, paired."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from timeloom.data.clip import Frames
from timeloom.errors import TimeloomError
from timeloom.study.clips import Format, common_format, destroy, read_clip, store_clip
from timeloom.study.design import DESIGN, MEDIA, Pair, Study, System, choose_comparisons, sample_prompts, write_study
from timeloom.study.questions import Question, require_prompts
from timeloom.study.store import count_votes
from timeloom.study.systems import Matched

SPARE_LINKS = 1.25
"""Some raters never come, or stop half-way."""


@dataclass(frozen=True)
class Settings:
    """What a study is to be, besides its videos."""

    questions: tuple[Question, ...]
    reference: str | None = None
    sample: int | None = None
    raters_per_pair: int = 5
    pairs_per_rater: int = 40
    attention: int = 3
    links: int | None = None
    title: str = Study.model_fields["title"].default
    seed: int = 0


def create_study(
    folder: Path,
    names: Sequence[str],
    parameters: dict[str, float],
    matched: Sequence[Matched],
    missing: Sequence[str],
    settings: Settings,
    overwrite: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Study:
    """Make the study in `folder`, whole or not at all; `advance(done, total)` counts prompts.

    Raises:
        TimeloomError: `folder` holds something else, or a study that has votes, or one and not `overwrite`; a prompt is
            not known that a question shows; a video is empty, damaged or cannot be played; the disk refuses.
    """
    _require_free(folder, overwrite)
    chosen = _choose(matched, choose_comparisons(names, settings.reference), settings)
    used = sorted({prompt for _, prompt in chosen})
    require_prompts(settings.questions, [matched[prompt].prompt for prompt in used])
    shapes = _formats([matched[prompt] for prompt in used])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:64]}.", suffix=".part"))
    except OSError as error:
        raise TimeloomError(f"Cannot write to the folder {folder.parent}: {error.strerror}.") from error
    try:
        media = unfinished / MEDIA
        media.mkdir()
        attention = _choose_attention([matched[prompt] for prompt in used], settings)
        clips: dict[tuple[int, int], str] = {}
        checks: list[Pair] = []
        for place, prompt in enumerate(used):
            for system, path in enumerate(matched[prompt].videos):
                if path is None or not any(prompt == other and system in pair for pair, other in chosen):
                    continue
                frames = read_clip(path, shapes[place])
                clips[place, system] = store_clip(frames, shapes[place].fps, media)
                if (place, system) in attention:
                    spoilt = _spoil(frames, shapes[place], media, settings.seed + place)
                    pair = Pair(
                        prompt=place, systems=(system, system), clips=(clips[place, system], spoilt), attention=True
                    )
                    checks.append(pair)
            advance(place + 1, len(used))
        places = {prompt: place for place, prompt in enumerate(used)}
        pairs = [
            Pair(
                prompt=places[prompt],
                systems=pair,
                clips=(clips[places[prompt], pair[0]], clips[places[prompt], pair[1]]),
            )
            for pair, prompt in chosen
        ]
        study = _describe(
            names, parameters, [matched[prompt].prompt for prompt in used], pairs, checks, missing, settings
        )
        write_study(study, unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return study


def _require_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / DESIGN).is_file():
        raise TimeloomError(f"{folder}: exists and is no study; give another name.")
    votes = count_votes(folder)
    if votes:
        raise TimeloomError(
            f"{folder}: has {votes} votes and is kept as it is. Make the changed study under another name."
        )
    if not overwrite:
        raise TimeloomError(f"{folder}: holds a study without votes. Use --overwrite to replace it, or another name.")


def _choose(
    matched: Sequence[Matched], comparisons: Sequence[tuple[int, int]], settings: Settings
) -> list[tuple[tuple[int, int], int]]:
    """(systems, prompt) of every pair to show."""
    chosen = []
    for pair in comparisons:
        both = [place for place, match in enumerate(matched) if all(match.videos[system] for system in pair)]
        chosen += [(pair, prompt) for prompt in sample_prompts(both, settings.sample, f"{settings.seed} {pair}")]
    if not chosen:
        raise TimeloomError("No prompt has videos by two systems that are to be compared.")
    return chosen


def _formats(matched: Sequence[Matched]) -> list[Format]:
    """The common format of each prompt's videos; all unplayable ones are named at once."""
    shapes, broken = [], []
    for match in matched:
        try:
            shapes.append(common_format([path for path in match.videos if path is not None]))
        except TimeloomError as error:
            broken.append(str(error).rstrip("."))
    if broken:
        raise TimeloomError("; ".join(broken) + ".")
    return shapes


def _choose_attention(matched: Sequence[Matched], settings: Settings) -> set[tuple[int, int]]:
    """(prompt, system) of the clips that are also shown beside themselves, destroyed."""
    choice = random.Random(f"{settings.seed} attention")
    places = choice.sample(range(len(matched)), min(settings.attention, len(matched)))
    return {
        (place, choice.choice([system for system, path in enumerate(matched[place].videos) if path is not None]))
        for place in places
    }


def _spoil(frames: Frames, shape: Format, media: Path, seed: int) -> str:
    return store_clip(destroy(frames, seed), shape.fps, media)


def _describe(
    names: Sequence[str],
    parameters: dict[str, float],
    prompts: Sequence[str | None],
    pairs: list[Pair],
    checks: list[Pair],
    missing: Sequence[str],
    settings: Settings,
) -> Study:
    per_rater = min(settings.pairs_per_rater, len(pairs))
    needed = max(settings.raters_per_pair, math.ceil(len(pairs) * settings.raters_per_pair / per_rater))
    first = names.index(settings.reference) if settings.reference is not None else None
    return Study(
        title=settings.title,
        seed=settings.seed,
        questions=settings.questions,
        systems=tuple(System(name=name, parameters=parameters.get(name)) for name in names),
        reference=first,
        prompts=tuple(prompts),
        pairs=(*pairs, *checks),
        raters_per_pair=settings.raters_per_pair,
        pairs_per_rater=per_rater,
        attention_per_rater=len(checks),
        links=settings.links or math.ceil(needed * SPARE_LINKS),
        left_out=tuple(missing),
    )
