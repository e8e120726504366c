"""Generating the videos of a protocol: one sample a prompt, a file each, kept as soon as it is there.

Files are lossless, so that what is measured is what the model made. Video i has the seed of the protocol plus i, so it
is the same whoever makes it, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom.errors import TimeloomError
from timeloom.evaluate.model import load_model
from timeloom.evaluate.prompt_sets import Prompt
from timeloom.evaluate.protocol import ClipRule, Protocol
from timeloom.evaluate.result_folder import claim
from timeloom.evaluate.video_sets import VideoSet
from timeloom.generate.prompts import slug

if TYPE_CHECKING:
    from timeloom.evaluate.command import Options

VIDEOS = "videos"
SUFFIX = ".webp"
PIPE_ARGUMENTS = ("num_frames", "height", "width", "num_inference_steps", "guidance_scale")


def file_of(prompt: Prompt) -> str:
    """The name of a prompt's video."""
    return f"{prompt.index:06d}-{slug(prompt.text)}{SUFFIX}"


def made_videos(folder: Path, prompts: Sequence[Prompt], failed: dict[str, str]) -> VideoSet:
    """The videos of a folder that `generate` fills; what is not there is missing, for the reason in `failed`."""
    videos = VideoSet("generated videos", {})
    for prompt in prompts:
        name = file_of(prompt)
        path = folder / VIDEOS / name
        if path.is_file():
            videos.files[name], videos.texts[name] = path, prompt.text
        else:
            videos.missing[name] = failed.get(name, "it was not generated")
    return videos


def generate(
    options: Options,
    protocol: Protocol,
    prompts: Sequence[Prompt],
    prompts_sha256: str,
    folder: Path,
    share: tuple[int, int],
    done: Callable[[int], None],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Make the videos that the folder lacks.

    Args:
        options: of the command: the model and its settings.
        protocol: its clips must be as long as the protocol's.
        prompts: all that are asked for.
        prompts_sha256: of the whole set.
        folder: belongs to this protocol, model and prompts.
        share: (rank, world) of this process, which takes its part of the prompts.
        done: hears how many more of its part are there.

    Returns:
        All that the videos depend on, and {name: why} of those that could not be made.

    Raises:
        TimeloomError: the folder is of something else, the model's clips are too short, or memory does not suffice.
    """
    pipe, settings = load_model(options)
    _require_length(protocol.clip, settings)
    seed = protocol.seed if options.seed is None else options.seed
    settings = {"model": options.model, **settings, "seed": seed}
    (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
    label = {"protocol": protocol.name, "protocol_sha256": protocol.sha256, "prompts_sha256": prompts_sha256}
    claim(folder, {**label, **settings}, (folder / VIDEOS).glob(f"*{SUFFIX}"), options.overwrite)
    rank, world = share
    own = list(prompts)[rank::world]
    wanted = [prompt for prompt in own if not (folder / VIDEOS / file_of(prompt)).exists()]
    done(len(own) - len(wanted))
    failed: dict[str, str] = {}
    for start in range(0, len(wanted), options.batch_size):
        batch = wanted[start : start + options.batch_size]
        for prompt, clip in _clips(pipe, batch, settings):
            if isinstance(clip, str):
                failed[file_of(prompt)] = clip
            else:
                _write(folder / VIDEOS / file_of(prompt), prompt, clip, settings)
        done(len(batch))
    return settings, failed


def _require_length(rule: ClipRule, settings: dict[str, Any]) -> None:
    """A clip that ends before the protocol's window does would be a failure, each and every one."""
    needed = rule.num_frames if rule.fps is None else (rule.num_frames - 1) / rule.fps * settings["fps"]
    if settings["num_frames"] < needed or (rule.fps is not None and settings["num_frames"] == needed):
        raise TimeloomError(
            f"The model's clips of {settings['num_frames']} frames at {settings['fps']:g} a second are shorter than "
            f"the protocol's {rule.num_frames} frames{f' at {rule.fps:g} a second' if rule.fps else ''}; see --frames."
        )


def _clips(pipe: Any, batch: Sequence[Prompt], settings: dict[str, Any]) -> Iterator[tuple[Prompt, Any]]:
    """Each prompt with its clip, uint8 (F, H, W, 3), or with what went wrong; a batch that fails is made one by one."""
    from timeloom.generate.pipeline import NonFiniteError

    try:
        frames = pipe(
            [prompt.text for prompt in batch],
            seeds=[settings["seed"] + prompt.index for prompt in batch],
            **{name: settings[name] for name in PIPE_ARGUMENTS},
        ).frames
    except NonFiniteError as error:
        if len(batch) == 1:
            yield batch[0], str(error)
        else:
            for prompt in batch:
                yield from _clips(pipe, [prompt], settings)
        return
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise TimeloomError(
                f"Not enough memory for {len(batch)} clips at once. Try a smaller --batch-size; what is made is kept."
            ) from error
        raise
    yield from zip(batch, frames, strict=True)


def _write(path: Path, prompt: Prompt, clip: Any, settings: dict[str, Any]) -> None:
    from timeloom.data.write import write_video

    told = {"prompt": prompt.text, **settings, "seed": settings["seed"] + prompt.index}
    metadata = {name: str(value) for name, value in told.items()}
    write_video(path, clip, fps=settings["fps"], metadata=metadata, overwrite=True)
