"""HD-VG-130M: scene cuts inside HD-VILA clips, which are spans of videos; over whatever of the three is at hand.

    {video_id: {"url", "clip": {"<id>.<n>.mp4": {"span": ["HH:MM:SS.mmm", "HH:MM:SS.mmm"], "fps": f,
      "scene_split": [{"clip_id": "<id>.<n>_<k>", "scene_cut": [start, end], "caption"}]}}}}

`scene_cut` counts frames of the HD-VILA clip, end -1 is the clip's own end; frames start + 1 to end - 1 are the
scene. Looked for, in this order: the scene `<clip_id>.mp4`, the HD-VILA clip `<id>.<n>.mp4`, the video `<id>.mp4`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from timeloom.data.clip import Ledger
from timeloom.data.files import first_there
from timeloom.data.json_file import annotation_files, members, seconds
from timeloom.data.listed_clip import ROUNDING, ListedClip, by_video, clock
from timeloom.data.table_builder import SECONDS, TEXT, TableBuilder, file_identity, kept_table
from timeloom.data.whole_file import whole_file

COLUMNS = {name: TEXT for name in ("key", "group", "caption", "scene", "clip", "video")} | {
    name: SECONDS for name in ("fps", "start_s", "end_s", "span_start_s", "span_end_s")
}
SCENE, CLIP, VIDEO = range(3)


def read_hd_vg_130m(path: Path, videos: Path, split: str | None) -> tuple[pa.Table, Ledger]:
    """One JSON, or all JSONs of a folder, as a table of clips."""
    files = annotation_files(path, ".json")
    table, ledger = kept_table(("hd-vg-130m", *map(file_identity, files)), lambda: _parse(files))
    choice, file, there = first_there(videos, [table["scene"], table["clip"], table["video"]])
    start, end, fps, span_start, span_end = (
        table[name].to_numpy() for name in ("start_s", "end_s", "fps", "span_start_s", "span_end_s")
    )
    # Times in milliseconds may lie beyond a cut: within the video, a frame is left out at either end.
    in_video = span_start + start + 1 / fps, np.fmin(span_start + end, span_end) - 1 / fps
    start_s = np.select([choice == SCENE, choice == CLIP], [0.0, start], in_video[0])
    end_s = np.select([choice == SCENE, choice == CLIP], [np.nan, end], in_video[1])
    columns = {name: table[name] for name in ("key", "group", "caption", "fps")}
    spans = {"start_s": pa.array(start_s), "end_s": pa.array(end_s, from_pandas=True)}
    return pa.table({**columns, "file": file, "there": pa.array(there), **spans}), ledger


def _parse(files: list[Path]) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder(COLUMNS)
    for file in files:
        for video, content in members(file):
            clips = content.get("clip") if isinstance(content, dict) else None
            if not isinstance(clips, dict):
                builder.refuse(video, "video without clips")
                continue
            for name, clip in clips.items():
                _add_scenes(builder, video, name, clip)
    return builder.finish()


def _add_scenes(builder: TableBuilder, video: str, name: str, clip: Any) -> None:
    try:
        fps, span = float(clip["fps"]), [seconds(time) for time in clip["span"]]
        scenes = list(clip["scene_split"])
        if not 0 < fps < 1000 or len(span) != 2:
            raise ValueError("fps or span")
    except (KeyError, TypeError, ValueError, OverflowError):
        builder.refuse(name, "clip without a span, fps or scene_split")
        return
    for place, scene in enumerate(scenes):
        try:
            key, (first, last) = str(scene["clip_id"]), [int(frame) for frame in scene["scene_cut"]]
            caption, start_s = scene["caption"], 0.0 if first <= 0 and last < 0 else (first + 1) / fps
            end_s = None if last < 0 else last / fps
            if not isinstance(caption, str):
                raise ValueError("caption")
        except (KeyError, TypeError, ValueError, OverflowError):
            builder.refuse(f"{name}, scene {place}", "scene without a clip_id, scene_cut or caption")
            continue
        builder.add(
            **{"key": key, "group": video, "caption": caption},
            **{"scene": f"{key}.mp4", "clip": name, "video": f"{video}.mp4"},
            **{"fps": fps, "span_start_s": span[0], "span_end_s": span[1]},
            **{"start_s": start_s, "end_s": end_s},
        )


def write_hd_vg_130m(path: Path, clips: Iterable[ListedClip]) -> None:
    """Clips as one JSON. Each video is one HD-VILA clip, `<id>.0.mp4`, that ends with its last scene; cuts are the
    frames that a scene starts with and ends before, of which readers leave the first out.

    Raises: OSError.
    """
    with whole_file(path) as file:
        file.write(b"{")
        for number, (video, scenes) in enumerate(by_video(clips)):
            name, fps = f"{video}.0", scenes[0].fps
            split = [
                {
                    "clip_id": f"{name}_{place}",
                    "scene_cut": [ceil(clip.start_s * fps - ROUNDING), floor(clip.end_s * fps + ROUNDING)],
                    "caption": clip.caption,
                }
                for place, clip in enumerate(scenes)
            ]
            end = clock(ceil(max(clip.end_s for clip in scenes) * 1000))
            whole = {"span": [clock(0), end], "fps": fps, "scene_split": split}
            entry = {"url": scenes[0].video, "clip": {f"{name}.mp4": whole}}
            file.write((",\n" if number else "\n").encode())
            file.write(f"{json.dumps(video)}: {json.dumps(entry)}".encode())
        file.write(b"\n}\n")
