"""`timeloom evaluate export`: videos under the names that VBench's and EvalCrafter's own tools look for.

timeloom evaluate export vbench out/ vbench/ --prompts VBench_full_info.json
timeloom evaluate export evalcrafter out/ EvalCrafter/videos --prompts prompt700.txt

VBench: `{prompt}-{0..4}.mp4`, five of each prompt. EvalCrafter: `0000.mp4` ... `0699.mp4` in the order of its prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from timeloom.errors import TimeloomError
from timeloom.options import parse

SAMPLES_OF_VBENCH = 5
MOST_BYTES = 255  # of a file's name


@dataclass(frozen=True)
class ExportOptions:
    """Copy videos under the names that another tool looks for. Which prompt a video answers is known from captions.csv,
    a .txt beside it, what Timeloom wrote into it, or its name in VBench's style. Videos that are no mp4 become one."""

    layout: Annotated[Literal["vbench", "evalcrafter"], tyro.conf.Positional]
    """Whose names: `{prompt}-{0..4}.mp4`, or `0000.mp4` in the order of the prompts."""
    source: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, such as one that `timeloom generate --num-samples 5` has filled."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to fill; files that are there stay."""
    prompts: Path
    """The tool's prompts: VBench_full_info.json, or a text file with one a line."""
    overwrite: bool = False
    """Replace files that are there."""
    json: bool = False
    """Print the counts as JSON."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate export` and return its exit code: 1 where prompts have no video."""
    options = parse(ExportOptions, args, prog="timeloom evaluate export")
    if not options.source.is_dir():
        raise TimeloomError(f"{options.source}: there is no such folder.")
    written, kept, lacking = export(options)
    if options.json:
        print(json.dumps({"written": written, "kept": kept, "lacking": lacking}, ensure_ascii=False))
    else:
        print(f"{options.target}: {written} written, {kept} were there, {len(lacking)} have no video")
        for name in lacking[:10]:
            print(f"  lacking: {name}")
    return 1 if lacking else 0


def export(options: ExportOptions) -> tuple[int, int, list[str]]:
    """How many files were written, how many were there already, and the names of those that have no video."""
    from timeloom.evaluate.video_sets import add_texts, find_videos, plain

    videos = find_videos(options.source, "videos")
    add_texts(videos, options.source)
    waiting: dict[str, list[str]] = {}
    for name in sorted(videos.files):
        if name in videos.texts:
            waiting.setdefault(plain(videos.texts[name]), []).append(name)
    written, kept, lacking = 0, 0, []
    for name, prompt in wanted_names(options.layout, read_prompt_list(options.prompts)):
        found = waiting.get(plain(prompt), [])
        if not found:
            lacking.append(name)
            continue
        source, target = videos.files[found.pop(0)], options.target / name
        if target.exists() and not options.overwrite:
            kept += 1
            continue
        _copy(source, target, prompt)
        written += 1
    return written, kept, lacking


def read_prompt_list(path: Path) -> list[str]:
    """Prompts of VBench's JSON (`prompt_en`), each once, or of a text file.

    Raises:
        TimeloomError: no such file, or another JSON.
    """
    if path.suffix != ".json":
        from timeloom.generate.prompts import read_prompts

        return read_prompts(path).prompts
    from timeloom.data.json_file import read_json

    try:
        return list(dict.fromkeys(str(row["prompt_en"]) for row in read_json(path)))
    except (KeyError, TypeError) as error:
        raise TimeloomError(f"{path}: is not VBench's list of prompts: objects with prompt_en are expected.") from error


def wanted_names(layout: str, prompts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file name, prompt) of every video that the tool looks for."""
    for place, prompt in enumerate(prompts):
        if layout == "evalcrafter":
            yield f"{place:04d}.mp4", prompt
            continue
        for number in range(SAMPLES_OF_VBENCH):
            name = f"{re.sub('/', ' ', prompt)}-{number}.mp4"
            if len(name.encode()) > MOST_BYTES:
                raise TimeloomError(f"A file cannot be called after so long a prompt: {prompt[:80]}...")
            yield name, prompt


def _copy(source: Path, target: Path, prompt: str) -> None:
    """The file as it is where it is an mp4, else its frames as one."""
    from timeloom.data.video import probe_video, read_metadata, read_video
    from timeloom.data.write import replace_file, write_video

    if source.suffix.lower() == ".mp4":
        replace_file(target, source.read_bytes())
        return
    told = {**read_metadata(source), "prompt": prompt}
    write_video(target, read_video(source), probe_video(source).fps, told, overwrite=True)
