"""The registry of what can be trained."""

from __future__ import annotations

import torch

from timeloom.train.autoencoder import AutoencoderTask
from timeloom.train.diffusion import DiffusionTask
from timeloom.train.recipe import Recipe
from timeloom.train.task import Task
from timeloom.train.text_encoder import TextEncoderTask
from timeloom.train.upscaler import UpscalerTask
from timeloom.train.upscaler_gan import UpscalerGanTask

TASKS: dict[str, type[Task]] = {
    "text_encoder": TextEncoderTask,
    "autoencoder": AutoencoderTask,
    "image": DiffusionTask,
    "video": DiffusionTask,
    "upscaler": UpscalerTask,
    "upscaler_gan": UpscalerGanTask,
}


def build_task(recipe: Recipe, device: torch.device) -> Task:
    """The networks and the loss that a recipe asks for. Weights that start afresh depend on the recipe's seed alone."""
    torch.manual_seed(recipe.seed)
    return TASKS[recipe.task](recipe, device)
