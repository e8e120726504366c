"""The protocol *digits* on a network that is still being trained, with the code of `timeloom evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from timeloom import __version__
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.evaluate import digits_protocol as digits
from timeloom.evaluate.digits_metrics import Looked, Looker, measure, reference
from timeloom.evaluate.judge import Judge, Verdict
from timeloom.generate.pipeline import TextToVideoPipeline
from timeloom.generate.schedulers import scheduler_name
from timeloom.tensor_cache import fingerprint
from timeloom.train.parallel import Processes
from timeloom.train.recipe import Recipe

BATCH_SIZE = 16
"""Clips denoised at once, whatever the number of processes: so the same clips come of any."""


def evaluate(pipe: TextToVideoPipeline, recipe: Recipe, folder: Path, device: torch.device) -> dict[str, float]:
    """Make clips for held-out prompts with the pipeline's own defaults, judge and measure them; processes share both.

    Clips, verdicts and the result go into `folder`, and what is there of the very same weights is not made again.

    Returns:
        {metric: value}, the same on every process.
    """
    options, processes = recipe.evaluation, Processes()
    assert options is not None
    pipe.set_progress_bar_config(disable=True)
    protocol = _protocol(pipe, recipe)
    prompts = digits.make_prompts(options.num_prompts, 0, protocol.colours, protocol.backgrounds)
    prompts = digits.for_images(prompts) if protocol.num_frames == 1 else prompts
    processes.first_then_others(lambda: _open(folder, protocol))
    store, judge, looker = digits.ClipStore(folder, protocol), Judge(protocol.fps), Looker(device)

    def look(batch: Sequence[digits.Prompt]) -> tuple[list[Verdict], Looked]:
        digits.generate(pipe, batch, protocol, store, BATCH_SIZE)
        clips, _ = digits.load_clips(batch, store)
        return judge(clips), looker.look(clips, batch)

    batches = [prompts[first : first + BATCH_SIZE] for first in range(0, len(prompts), BATCH_SIZE)]
    parts = processes.share(look, batches)
    verdicts = [verdict for own, _ in parts for verdict in own]
    metrics = measure(Looked.joined([looked for _, looked in parts]), reference(looker, protocol))
    right = digits.count_right(prompts, verdicts)
    if processes.rank == 0:
        result = {
            "protocol": protocol.to_json(),
            "protocol_sha256": protocol.sha256,
            "num_prompts": len(prompts),
            "model_right": digits.shares_to_json(right),
            "marks": digits.marks(prompts, verdicts),
            "failures": digits.find_failures(prompts, verdicts),
            "metrics": {name: found.to_json() for name, found in metrics.items()},
        }
        replace_file(folder / "result.json", json.dumps(result, indent=2, ensure_ascii=False).encode())
    values = {name: groups["all"].value for name, groups in right.items()}
    return values | {name: found.value for name, found in metrics.items()}


def _open(folder: Path, protocol: digits.Protocol) -> None:
    """A folder for these clips; those of other weights, left by a run that went on elsewhere, are thrown away."""
    try:
        digits.ClipStore(folder, protocol)
    except TimeloomError:
        digits.ClipStore(folder, protocol, overwrite=True)


def _protocol(pipe: TextToVideoPipeline, recipe: Recipe) -> digits.Protocol:
    config = pipe.config
    return digits.Protocol(
        num_frames=config.num_frames,
        fps=config.fps,
        height=config.height,
        width=config.width,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        sampler=scheduler_name(pipe.scheduler),
        precision="fp32",
        weights_sha256=fingerprint(pipe.unet),
        timeloom=__version__,
        torch=str(torch.__version__),
        colours=tuple(recipe.data.colours),
        backgrounds=tuple(recipe.data.backgrounds),
    )
