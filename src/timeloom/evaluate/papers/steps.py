"""How many parameters each kind of model has, and how long a denoising step takes, the models in turn."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from timeloom.data.write import replace_file
from timeloom.evaluate.papers.models import IMAGE_MODEL, Group
from timeloom.generate.pipeline import TextToVideoPipeline

PROMPT = "a red seven moves left"
WARM_UP = 2


def time_steps(group: Group, device: torch.device, rounds: int, folder: Path) -> dict[str, Any]:
    """{label: {parameters, step_s: [seconds of one step of one clip with guidance, a number a round]}}.

    What was measured on these models stays in `folder`.
    """
    labels = {label: models[0] for label, models in group.runs.items() if label != IMAGE_MODEL}
    what = json.dumps([rounds, str(device), {label: model.sha256 for label, model in labels.items()}])
    kept = folder / f"steps-{hashlib.sha256(what.encode()).hexdigest()[:12]}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    steps: dict[str, Callable[[], None]] = {}
    found: dict[str, Any] = {}
    for label, model in labels.items():
        pipe = TextToVideoPipeline.from_pretrained(model.folder).to(device)
        steps[label] = _step(pipe, device)
        found[label] = {"parameters": sum(p.numel() for p in pipe.unet.parameters()), "step_s": []}
    with torch.inference_mode():
        for turn in range(rounds + WARM_UP):
            for label, step in steps.items():
                began = time.perf_counter()
                step()
                if turn >= WARM_UP:
                    found[label]["step_s"].append(time.perf_counter() - began)
    replace_file(kept, json.dumps(found, indent=2).encode())
    return found


def _step(pipe: TextToVideoPipeline, device: torch.device) -> Callable[[], None]:
    config, unet = pipe.config, pipe.unet
    height, width = (side // pipe.pixels_per_latent for side in (config.height, config.width))
    latents = torch.randn(2, config.num_frames, unet.config.in_channels, height, width, device=device)
    text = pipe.encode_text(["", PROMPT]).to(device)

    def step() -> None:
        unet(latents, 500, text)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return step
