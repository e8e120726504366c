"""The model that is evaluated, with all that its clips depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom.device import choose_device, choose_dtype

if TYPE_CHECKING:
    from timeloom.evaluate.command import Options
    from timeloom.generate.pipeline import TextToVideoPipeline

WEIGHING_FILES = (".safetensors", ".json", ".txt")
"""Of a model folder: what decides the clips it makes."""


def load_model(options: Options) -> tuple[TextToVideoPipeline, dict[str, Any]]:
    """The pipeline on its device, and every setting that its clips depend on, its defaults filled in."""
    import torch

    from timeloom import __version__
    from timeloom.adapters import find_adapter
    from timeloom.generate import model_folder
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.generate.schedulers import make_scheduler, scheduler_name

    assert options.model is not None
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    pipe = TextToVideoPipeline.from_pretrained(
        options.model, dtype=dtype, adapter=options.adapter, adapter_scale=options.adapter_scale
    ).to(device)
    weights = hash_model(model_folder.find_model(options.model))
    if options.adapter is not None:
        change = hashlib.sha256(find_adapter(options.adapter).read_bytes()).hexdigest()
        weights = hashlib.sha256(f"{weights} + {options.adapter_scale} x {change}".encode()).hexdigest()
    if options.without_temporal:
        pipe.unet.remove_temporal_mechanism()
        weights = hashlib.sha256(f"{weights} without temporal mechanism".encode()).hexdigest()
    if options.sampler is not None:
        pipe.scheduler = make_scheduler(options.sampler, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.config
    return pipe, {
        "num_frames": config.num_frames if options.frames is None else options.frames,
        "fps": config.fps,
        "height": config.height,
        "width": config.width,
        "num_inference_steps": config.num_inference_steps if options.steps is None else options.steps,
        "guidance_scale": config.guidance_scale if options.guidance is None else options.guidance,
        "sampler": scheduler_name(pipe.scheduler),
        "precision": options.precision,
        "weights_sha256": weights,
        "timeloom": __version__,
        "torch": str(torch.__version__),
    }


def hash_model(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's weights, configurations and vocabulary."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in WEIGHING_FILES):
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()
