"""Samplers by name: diffusers' schedulers, each built on the training schedule of the model at hand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin, UniPCMultistepScheduler

from timeloom.errors import TimeloomError, unknown_name

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddpm": DDPMScheduler,  # Ho et al. 2020: ancestral, wants many steps
    "ddim": DDIMScheduler,  # Song et al. 2021, eta 0
    "dpm-solver++": DPMSolverMultistepScheduler,  # Lu et al. 2022, second order multistep
    "unipc": UniPCMultistepScheduler,  # Zhao et al. 2023
}


def make_scheduler(name: str, config: Mapping[str, Any]) -> SchedulerMixin:
    """The sampler `name` on the training schedule (betas, number of steps, prediction type) that `config` tells.

    `config` is the config of any diffusers scheduler, so that one sampler can be exchanged for another.

    Raises:
        TimeloomError: an unknown name, or a training schedule that the sampler cannot follow.
    """
    if name not in SCHEDULERS:
        raise unknown_name("sampler", name, SCHEDULERS)
    # DDPM and DDIM clip the predicted sample to [-1, 1] unless told otherwise: right for pixels, wrong for latents.
    # What diffusers marks as a default it would replace by the new class's own, but only until the config is saved.
    latent_config = {**config, "clip_sample": False, "_use_default_values": []}
    try:
        return SCHEDULERS[name].from_config(latent_config)
    except (NotImplementedError, ValueError) as error:
        raise TimeloomError(f"The sampler {name!r} does not fit the model's noise schedule: {error}") from error


def scheduler_name(scheduler: SchedulerMixin) -> str:
    """The name of a sampler; for one that has none here, the name of its class."""
    return next((name for name, cls in SCHEDULERS.items() if type(scheduler) is cls), type(scheduler).__name__)


def step_arguments(scheduler: SchedulerMixin, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """What `scheduler.step` wants beside its tensors: one generator a sample where it draws noise, else nothing."""
    return {"generator": list(generators)} if "generator" in inspect.signature(scheduler.step).parameters else {}
