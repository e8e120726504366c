"""The engine of the page: the very code of `timeloom generate`, with one model in memory at a time."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from timeloom.errors import TimeloomError
from timeloom.generate import command
from timeloom.generate.outputs import Job
from timeloom.generate.prompts import require_prompt
from timeloom.studio.jobs import Clip, OnStep
from timeloom.studio.request import ClipRequest, Limits

if TYPE_CHECKING:
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.upscaler import Upscaler


class ModelEngine:
    """Loads a model when a clip asks for it, after letting go of the one before.

    Args:
        models: {the name that visitors see: a zoo name, a folder, or a Hub id}.
        device, precision: as the options of `timeloom generate`.
        max_upscaled_side: height and width in pixels that upscaling may reach.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        device: str = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
        max_upscaled_side: int = Limits.max_upscaled_side,
    ) -> None:
        self._models = models
        self._device = device
        self._precision = precision
        self._max_upscaled_side = max_upscaled_side
        self._lock = threading.Lock()
        self.loaded: str | None = None
        self._pipe: TextToVideoPipeline | None = None
        self._own_scheduler: Any = None
        self._upscaler: Upscaler | None = None

    def prepare(self, model: str) -> None:
        """Load a model ahead of the first clip. One that cannot be loaded says why when a clip asks for it."""
        with self._lock, contextlib.suppress(TimeloomError):
            if self._pipe is None:
                self._load(model)

    def make(self, request: ClipRequest, folder: Path, token: str, on_step: OnStep) -> Clip:
        """Write the clip that `timeloom generate` makes from the same settings: .mp4, or .png for a single frame.

        Raises:
            TimeloomError: the model cannot be loaded, or an argument makes no sense to it.
        """
        require_prompt(request.prompt)
        began = time.perf_counter()
        with self._lock:
            pipe = self._load(request.model)
            options = self._options(request)
            self._set_sampler(pipe, options.sampler)
            settings = {**command.clip_settings(pipe, options), "model": request.model}
            suffix = ".png" if settings["num_frames"] == 1 else ".mp4"
            job = Job(request.prompt, request.seed, folder / f"{token}{suffix}")
            told = _watch(on_step, settings["num_inference_steps"])
            upscaler = self._find_upscaler(pipe, options, settings)
            frames = command.sample(pipe, upscaler, options, [job], settings, told)[0]
        command.write_clip(job, frames, settings)
        stored = {"prompt": request.prompt, "seed": request.seed, **settings}
        return Clip(
            file=job.path,
            settings={name: str(value) for name, value in stored.items()},
            width=frames.shape[2],
            height=frames.shape[1],
            seconds=time.perf_counter() - began,
        )

    def _options(self, request: ClipRequest) -> command.Options:
        return command.Options(
            prompt=request.prompt,
            model=self._models[request.model],
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            frames=request.frames,
            height=request.height,
            width=request.width,
            steps=request.steps,
            guidance=request.guidance,
            sampler=request.sampler,
            upscale=request.upscale,
            precision=self._precision,
            device=self._device,
        )

    def _load(self, model: str) -> TextToVideoPipeline:
        if self.loaded != model or self._pipe is None:
            self._let_go()
            self._pipe = command.load_pipeline(
                command.Options(model=self._models[model], precision=self._precision, device=self._device)
            )
            self._pipe.set_progress_bar_config(disable=True)
            self._own_scheduler, self.loaded = self._pipe.scheduler, model
        return self._pipe

    def _set_sampler(self, pipe: TextToVideoPipeline, sampler: str | None) -> None:
        """The sampler asked for, or the model's own again."""
        from timeloom.generate.schedulers import make_scheduler

        pipe.scheduler = self._own_scheduler if sampler is None else make_scheduler(sampler, self._own_scheduler.config)

    def _find_upscaler(
        self, pipe: TextToVideoPipeline, options: command.Options, settings: Mapping[str, Any]
    ) -> Upscaler | None:
        """What makes frames larger, where the clip asks for it; loaded once for each model."""
        self._upscaler = self._upscaler or command.load_upscaler(pipe, options)
        if self._upscaler is None or not options.upscale:
            return None
        side = max(settings["height"], settings["width"]) * self._upscaler.scale
        if side > self._max_upscaled_side:
            raise TimeloomError(
                f"Upscaled, a side would have {side} pixels, and at most {self._max_upscaled_side} are made: "
                "choose a smaller height and width, or do not upscale."
            )
        return self._upscaler

    def _let_go(self) -> None:
        import torch

        self._pipe, self._upscaler, self.loaded = None, None, None
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()


def _watch(on_step: OnStep, steps: int) -> Any:
    """The pipeline's callback that tells `on_step` how far it is, and lets it look at the middle frame."""

    def callback(pipe: TextToVideoPipeline, step: int, timestep: Any, values: dict[str, Any]) -> None:
        latents = values["latents"]
        middle = latents[:, latents.shape[1] // 2][:, None]
        on_step(step + 1, steps, lambda: pipe.decode(middle, 1)[0, 0])

    return callback
