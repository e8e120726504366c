"""The protocol *digits*: prompts about handwriting never trained on, a clip for each, and what the judge sees in it.

Three prompts in four describe combinations of attributes that training has shown, every fourth one that it never has.
Prompt i and its clip depend on the seed and i alone, so a longer run begins with the clips of a shorter one.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from timeloom.data.clip import Frames, Window
from timeloom.data.digits import ATTRIBUTES, DigitsSource
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.evaluate.intervals import Share
from timeloom.evaluate.judge import Judge, Verdict
from timeloom.evaluate.result_folder import claim

GROUPS = ("all", "seen", "unseen")


@dataclass(frozen=True)
class Protocol:
    """All that the clips of an evaluation depend on. Two results can be compared where these are equal."""

    num_frames: int
    fps: float
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    precision: str
    weights_sha256: str
    """Of every file of the model that decides what it makes."""
    timeloom: str
    torch: str
    name: str = "digits"
    split: str = "test"
    seed: int = 0
    """Clip i is made with seed + i."""
    colours: tuple[str, ...] = ()
    """Of the prompts; all where none is named."""
    backgrounds: tuple[str, ...] = ()
    """The same."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON has them; a style's only where there is one, so that without it nothing changes."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != ()
        }


@dataclass(frozen=True)
class Prompt:
    """What is asked for, and where a real clip shows it."""

    index: int
    text: str
    group: str
    """Combinations "seen" in training, or "unseen"."""
    attributes: dict[str, str]
    """What is judged: all four; of an image, all but the motion."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Shares of a result: each attribute right, all at once; of a clip also, no part of "all", whether the digit is
        the same throughout."""
        return (*self.attributes, "all", *(("steady",) if "motion" in self.attributes else ()))


def make_prompts(
    num_prompts: int, seed: int = 0, colours: Sequence[str] = (), backgrounds: Sequence[str] = ()
) -> list[Prompt]:
    """Complete captions of test clips, in these colours and on these backgrounds alone where any are named.

    Raises:
        TimeloomError: a colour or background that *digits* does not have.
    """
    sources = {group: _source(group, seed, colours, backgrounds) for group in ("seen", "unseen")}
    prompts = []
    for index in range(num_prompts):
        group = "unseen" if index % 4 == 3 else "seen"
        scene, text = sources[group].scene(index)
        prompts.append(Prompt(index, text, group, scene.attributes))
    return prompts


def for_images(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that one frame can be judged by, without their motion.

    Those that spin are left out: one frame may show the digit at any angle, and the judge reads upright ones.

    Raises:
        TimeloomError: none is left.
    """
    kept = [prompt for prompt in prompts if prompt.attributes["motion"] != "spin"]
    if not kept:
        raise TimeloomError("All prompts spin, which one frame cannot show; take a larger --num-prompts.")
    still = [name for name in ATTRIBUTES if name != "motion"]
    return [replace(prompt, attributes={name: prompt.attributes[name] for name in still}) for prompt in kept]


def draw_real_clips(prompts: Sequence[Prompt], protocol: Protocol) -> Frames:
    """The real test clips that the prompts were written about, uint8 (B, F, H, W, 3); images show all their moments."""
    window = Window(protocol.num_frames, protocol.fps, protocol.height, protocol.width)
    told = protocol.seed, protocol.colours, protocol.backgrounds
    return np.stack(
        [
            _source(prompt.group, *told)[prompt.index].draw(
                window, prompt.index % 16 / 15 if protocol.num_frames == 1 else 0.0
            )
            for prompt in prompts
        ]
    )


def _source(group: str, seed: int, colours: Sequence[str], backgrounds: Sequence[str]) -> DigitsSource:
    combinations: Any = group
    return DigitsSource(
        "test", seed, combinations=combinations, complete_captions=True, colours=colours, backgrounds=backgrounds
    )


class ClipStore:
    """The generated clips of a run, a file each, written as they come: a run that was stopped goes on where it was.

    Args:
        folder: made if it is not there.
        protocol: a folder belongs to one protocol.
        overwrite: throw away clips of another protocol.

    Raises:
        TimeloomError: the folder holds clips of another protocol.
    """

    def __init__(self, folder: Path, protocol: Protocol, overwrite: bool = False) -> None:
        self.clips = folder / "clips"
        self._sha256 = protocol.sha256
        self.clips.mkdir(parents=True, exist_ok=True)
        claim(folder, protocol.to_json(), self.clips.glob("*.npz"), overwrite)

    def path(self, prompt: Prompt) -> Path:
        return self.clips / f"{prompt.index:05d}.npz"

    def save(self, prompt: Prompt, clip: Frames, seconds: float) -> None:
        """Store a clip uint8 (F, H, W, 3) and the seconds that making it took."""
        content = io.BytesIO()
        np.savez_compressed(content, frames=clip, seconds=seconds, prompt=prompt.text, protocol=self._sha256)
        replace_file(self.path(prompt), content.getvalue())

    def load(self, prompt: Prompt) -> tuple[Frames, float] | None:
        """The clip and its seconds, or None where it is still to be made."""
        try:
            with np.load(self.path(prompt), allow_pickle=False) as stored:
                if str(stored["protocol"]) == self._sha256 and str(stored["prompt"]) == prompt.text:
                    return stored["frames"], float(stored["seconds"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TimeloomError(f"{self.path(prompt)} is damaged; delete it and run again.") from error
        return None


def generate(
    pipe: Callable[..., Any],
    prompts: Sequence[Prompt],
    protocol: Protocol,
    store: ClipStore,
    batch_size: int = 16,
    done: Callable[[int], None] = lambda count: None,
) -> None:
    """Make the clips that the store lacks with a `TextToVideoPipeline`; `done` hears how many more there are."""
    missing = [prompt for prompt in prompts if not store.path(prompt).exists() or store.load(prompt) is None]
    done(len(prompts) - len(missing))
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        began = time.perf_counter()
        frames = pipe(
            [prompt.text for prompt in batch],
            num_frames=protocol.num_frames,
            height=protocol.height,
            width=protocol.width,
            num_inference_steps=protocol.num_inference_steps,
            guidance_scale=protocol.guidance_scale,
            seeds=[protocol.seed + prompt.index for prompt in batch],
        ).frames
        seconds = (time.perf_counter() - began) / len(batch)
        for prompt, clip in zip(batch, frames, strict=True):
            store.save(prompt, np.asarray(clip), seconds)
        done(len(batch))


def load_clips(prompts: Sequence[Prompt], store: ClipStore) -> tuple[Frames, float]:
    """All generated clips, uint8 (B, F, H, W, 3), and the seconds that making them took.

    Raises:
        TimeloomError: one is missing.
    """
    clips, seconds = [], 0.0
    for prompt in prompts:
        stored = store.load(prompt)
        if stored is None:
            raise TimeloomError(f"{store.path(prompt)} is missing; run the same command again to make it.")
        clips.append(stored[0])
        seconds += stored[1]
    return np.stack(clips), seconds


def is_right(prompt: Prompt, verdict: Verdict, metric: str) -> bool:
    """Whether a clip shows what was asked for, in one of the prompt's metrics."""
    if metric == "steady":
        return verdict.steady
    seen = verdict.attributes
    return all(seen[name] == prompt.attributes[name] for name in (prompt.attributes if metric == "all" else (metric,)))


def count_right(prompts: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, dict[str, Share]]:
    """{metric: {group: share}}; what cannot be judged counts as wrong, so a share is of all prompts of its group."""
    pairs = list(zip(prompts, verdicts, strict=True))

    def share(metric: str, group: str) -> Share:
        own = [is_right(prompt, verdict, metric) for prompt, verdict in pairs if group in ("all", prompt.group)]
        return Share(sum(own), len(own))

    return {metric: {group: share(metric, group) for group in GROUPS} for metric in prompts[0].metrics}


def marks(prompts: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, str]:
    """{metric: a letter a prompt, 1 where the clip is right}, so that two models can be compared prompt by prompt."""
    pairs = list(zip(prompts, verdicts, strict=True))
    return {
        metric: "".join("01"[is_right(prompt, verdict, metric)] for prompt, verdict in pairs)
        for metric in prompts[0].metrics
    }


def find_failures(prompts: Sequence[Prompt], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Every clip that is not right in all: its index, prompt, and {attribute: {asked, seen}} for what is wrong."""
    failures = []
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        seen = verdict.attributes
        wrong = {
            name: {"asked": asked, "seen": seen[name]}
            for name, asked in prompt.attributes.items()
            if seen[name] != asked
        }
        if wrong:
            failures.append({"index": prompt.index, "prompt": prompt.text, "group": prompt.group, "wrong": wrong})
    return failures


def measure_judge(judge: Judge, prompts: Sequence[Prompt], protocol: Protocol) -> dict[str, dict[str, Share]]:
    """The judge's own accuracy: `count_right` on the real clips that the prompts were written about."""
    chunks: Iterable[Sequence[Prompt]] = (prompts[start : start + 64] for start in range(0, len(prompts), 64))
    verdicts = [verdict for chunk in chunks for verdict in judge(draw_real_clips(chunk, protocol))]
    return count_right(prompts, verdicts)


def shares_to_json(shares: dict[str, dict[str, Share]]) -> dict[str, Any]:
    """Plain numbers for JSON."""
    return {
        metric: {
            group: {"value": share.value, "interval": list(share.interval), "right": share.right, "n": share.total}
            for group, share in groups.items()
        }
        for metric, groups in shares.items()
    }
