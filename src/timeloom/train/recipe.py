"""Recipes: the options of a training run, once, as typed fields; YAML, help and checks come from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from timeloom.errors import TimeloomError, unknown_name


class Options(BaseModel):
    """A group of options. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataOptions(Options):
    """What the network sees."""

    source: Literal["digits", "folder"] = "digits"
    path: str | None = None
    """Folder of clips, for `source: folder`."""
    captions: str | None = None
    """CSV or JSONL of captions; without it they are looked for in the folder and beside each clip."""
    num_frames: int = Field(16, ge=1, le=1024)
    """Frames of a training clip; 1 trains on images."""
    fps: float = Field(8.0, gt=0)
    """Frames a second at which a clip is sampled."""
    height: int = Field(64, ge=8, multiple_of=8)
    """Pixels."""
    width: int = Field(64, ge=8, multiple_of=8)
    """Pixels."""
    validation_clips: int = Field(32, ge=1)
    """Clips held out for the validation loss. *digits* has its own split; a folder gives these up."""


class NoiseScheduleOptions(Options):
    """The forward process, for a U-Net that starts afresh; Stable Diffusion's by default. A trained one keeps its own."""

    num_train_timesteps: int = Field(1000, ge=1)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    beta_start: float = Field(0.00085, gt=0, lt=1)
    beta_end: float = Field(0.012, gt=0, lt=1)


class ModelOptions(Options):
    """Where each part comes from: a model folder (or zoo name) that holds it, or a config to start afresh."""

    text_encoder: str | dict[str, Any] | None = None
    vae: str | dict[str, Any] | None = None
    unet: str | dict[str, Any] | None = None
    temporal: Literal["none", "shift"] = "none"
    shift_fraction: float = Field(0.25, ge=0.0, le=0.5)
    shift_placement: Literal["residual_start", "residual_end"] = "residual_end"
    noise_schedule: NoiseScheduleOptions = NoiseScheduleOptions.model_validate({})


class OptimizerOptions(Options):
    """Adam with decoupled weight decay."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak; the paper's value is the default (facts: Adam, 5e-5, batch 256)."""
    final_learning_rate: float | None = Field(None, ge=0)
    """Cosine decay to this value at the end; constant when absent."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    warmup_samples: int = Field(0, ge=0)
    """Samples over which the rate rises linearly from 0."""
    max_grad_norm: float = Field(1.0, gt=0)


class ScheduleOptions(Options):
    """Everything counts samples seen (clips, or images), over all processes."""

    total_samples: int = Field(gt=0)
    batch_size: int = Field(256, gt=0)
    """Global batch size, in samples; divides by the number of processes."""
    log_every: int = Field(1_000, gt=0)
    validate_every: int = Field(50_000, gt=0)
    """Held-out loss and previews."""
    checkpoint_every: int = Field(50_000, gt=0)
    keep_checkpoints: int = Field(2, ge=1)


class LossOptions(Options):
    """What is minimised; each task reads its own."""

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions replaced by the empty one, for classifier-free guidance (image, video)."""
    image_share: float = Field(0.0, ge=0, lt=1)
    """Share of each batch's clips whose frames are trained on as images (video)."""
    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the autoencoder's Kullback-Leibler term (autoencoder)."""
    edge_weight: float = Field(1.0, ge=0)
    """Weight of the difference of image gradients, which keeps edges sharp (autoencoder)."""


class PreviewOptions(Options):
    """Samples drawn while training, by the same pipeline as `timeloom generate`."""

    prompts: list[str] = Field(default_factory=list)
    """Prompts; held-out captions when empty."""
    num_inference_steps: int = Field(25, ge=1)
    guidance_scale: float = Field(4.0, ge=1)
    sampler: str = "dpm-solver++"


class Recipe(Options):
    """A training run."""

    task: Literal["text_encoder", "autoencoder", "image", "video"]
    output: str
    """Folder of the run: checkpoints, log, previews, and the trained model in `model/`."""
    seed: int = 0
    data: DataOptions = DataOptions.model_validate({})
    model: ModelOptions = ModelOptions()
    optimizer: OptimizerOptions = OptimizerOptions.model_validate({})
    schedule: ScheduleOptions
    loss: LossOptions = LossOptions.model_validate({})
    preview: PreviewOptions = PreviewOptions.model_validate({})
    ema_half_life_samples: float = Field(0, ge=0)
    """Samples after which the moving average of the weights has half forgotten; 0 keeps no average."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the forward and backward pass; weights and optimizer are always fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    workers: int = Field(2, ge=1)
    """Threads that read and draw clips ahead of the network."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.data.source == "folder" and not self.data.path:
            raise ValueError("data.path: a folder of clips is needed for `source: folder`")
        if self.task == "image" and self.data.num_frames != 1:
            raise ValueError("data.num_frames: the image task trains on 1 frame")
        if self.task == "video" and self.data.num_frames < 2:
            raise ValueError("data.num_frames: the video task needs at least 2 frames")
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, with `key.subkey=value` overrides in YAML syntax.

    Raises:
        TimeloomError: the file is not a recipe; an unknown key is named with the nearest known one.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TimeloomError(f"{path} is not a readable recipe: {error}") from error
    if not isinstance(raw, dict):
        raise TimeloomError(f"{path} is not a recipe: it should be a mapping of options")
    for override in overrides or []:
        _override(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, path) from error


def _override(raw: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals:
        raise TimeloomError(f"An override reads key.subkey=value, not {override!r}.")
    *groups, key = dotted.split(".")
    target = raw
    for group in groups:
        target = target.setdefault(group, {})
        if not isinstance(target, dict):
            raise TimeloomError(f"{dotted}: {group} is not a group of options.")
    target[key] = yaml.safe_load(value)


def _explain(error: ValidationError, path: Path) -> TimeloomError:
    """The first problem, in one sentence."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        group: Any = Recipe
        for part in location[:-1]:
            group = group.model_fields[part].annotation
        problem = unknown_name("option", location[-1], group.model_fields)
        return TimeloomError(f"{path}: {'.'.join(location)}: {problem}")
    message = first["msg"].removeprefix("Value error, ")
    return TimeloomError(f"{path}: {'.'.join(location) + ': ' if location else ''}{message}")
