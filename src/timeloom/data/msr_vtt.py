"""MSR-VTT: JSON with `videos` (video_id, split, ...) and `sentences` (video_id, sen_id, caption); `{video_id}.mp4`.

Copies for retrieval hold one split as a list of {"video": "video7010.mp4", "caption": [...]}; they are read as well.
Every sentence is a clip. The files are the clips already: "start time" and "end time" lie in the film they came from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from timeloom.data.clip import Ledger
from timeloom.data.json_file import annotation_files, read_json
from timeloom.data.listed_clip import ListedClip
from timeloom.data.table_builder import TEXT, TableBuilder
from timeloom.data.whole_file import whole_file
from timeloom.errors import TimeloomError, unknown_name


def read_msr_vtt(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """The sentences of a split ("train" unless said, "validate", "test", or "all") as a table of clips."""
    split = split or "train"
    builder = TableBuilder({"key": TEXT, "file": TEXT, "caption": TEXT})
    splits: Counter[str] = Counter()
    for file in annotation_files(path, ".json"):
        content = read_json(file)
        if isinstance(content, list):
            content = _from_list(content, split)
        try:
            split_of = {str(video["video_id"]): str(video.get("split", "")) for video in content["videos"]}
            sentences = [(str(row["video_id"]), row.get("sen_id"), row["caption"]) for row in content["sentences"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise TimeloomError(
                f"{file}: is not MSR-VTT's JSON: `videos` with video_id and split, `sentences` with video_id and "
                "caption are expected."
            ) from error
        splits.update(split_of.values())
        for place, (video, number, caption) in enumerate(sentences):
            key = f"{video}/{number if number is not None else place}"
            if video not in split_of:
                builder.refuse(key, "sentence about a video that is not listed")
            elif split not in ("all", split_of[video]):
                continue
            elif not isinstance(caption, str):
                builder.refuse(key, "caption that is no text")
            else:
                builder.add(key=key, file=f"{video}.mp4", caption=caption)
    if split != "all" and split not in splits:
        raise unknown_name(f"split of {path}:", split, [*splits, "all"])
    return builder.finish()


def _from_list(rows: list[Any], split: str) -> dict[str, Any]:
    """The layout with `videos` and `sentences` of a list that is all of the split that is asked for."""
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("caption"), list) for row in rows):
        return {}
    videos, sentences = [], []
    for row in rows:
        name = str(row.get("video", "")).removesuffix(".mp4")
        videos.append({"video_id": name, "split": split})
        sentences += [
            {"video_id": name, "sen_id": number, "caption": text} for number, text in enumerate(row["caption"])
        ]
    return {"videos": videos, "sentences": sentences}


def write_msr_vtt(path: Path, clips: Callable[[], Iterable[ListedClip]]) -> None:
    """Clips that are files of their own as one JSON, all in the split "train", each with one sentence.

    `clips` gives them anew each time; `videos` is the folder that their paths count from. `category` is a number, as
    in the original: a place in `categories`. Raises: OSError.
    """
    categories = sorted({clip.label for clip in clips()})
    with whole_file(path) as file:
        file.write(f'{{"categories": {json.dumps(categories)},\n"videos": ['.encode())
        for number, clip in enumerate(clips()):
            video = {
                "video_id": _name(clip),
                "category": categories.index(clip.label),
                "url": clip.video,
                "start time": clip.start_s,
                "end time": clip.end_s,
                "split": "train",
            }
            file.write(((",\n" if number else "\n") + json.dumps(video)).encode())
        file.write(b'],\n"sentences": [')
        for number, clip in enumerate(clips()):
            sentence = {"sen_id": number, "video_id": _name(clip), "caption": clip.caption}
            file.write(((",\n" if number else "\n") + json.dumps(sentence)).encode())
        file.write(b"]}\n")


def _name(clip: ListedClip) -> str:
    return (clip.file or "").rpartition(".")[0]
