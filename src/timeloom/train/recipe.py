"""Recipes: the options of a training run, once, as typed fields; YAML, help and checks come from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from timeloom.data.sources import DataOptions
from timeloom.errors import unknown_name
from timeloom.models.families import FAMILIES
from timeloom.models.swap_options import SwapOptions
from timeloom.schema import Schema, check, read_yaml
from timeloom.upscale.degradation import DegradationOptions


class NoiseScheduleOptions(Schema):
    """The forward process. What is absent is as the folder of model.unet has it; for a U-Net that starts afresh, as
    Stable Diffusion has it."""

    num_train_timesteps: int | None = Field(default=None, ge=1)
    """Stable Diffusion: 1000."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] | None = None
    """Stable Diffusion: scaled_linear."""
    beta_start: float | None = Field(default=None, gt=0, lt=1)
    """Stable Diffusion: 0.00085."""
    beta_end: float | None = Field(default=None, gt=0, lt=1)
    """Stable Diffusion: 0.012."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the network predicts: the noise (epsilon), or the velocity √ᾱ·noise − √(1−ᾱ)·latents (arXiv 2202.00512,
    App. D). A trained network that is told another one has that to learn first."""
    rescale_betas_zero_snr: bool | None = None
    """No signal at the last step (arXiv 2305.08891, Alg. 1); wants v_prediction: pure noise tells nothing of itself."""


class LoraOptions(Schema):
    """A low-rank change of the U-Net's weights, trained in place of the weights (LoRA, arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1)
    """R: a layer from n to m channels learns R · (n + m) numbers in place of n · m."""
    alpha: float = Field(default=16.0, gt=0)
    """The change is alpha / R · B·A, so that with alpha = R it stands as it is."""
    target_modules: list[str] = Field(
        default=[
            *("conv1", "conv2", "proj_in", "proj_out"),
            *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
        ],
        min_length=1,
    )
    """How the names of the layers end: the ResNet blocks' convolutions, whose channels are shifted, and attention."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Numbers that the adapter is stored in; training and its checkpoints have fp32."""


class ModelOptions(Schema):
    """Where each part comes from: a model folder (or zoo name) that holds it, or a config to start afresh."""

    text_encoder: str | dict[str, Any] | None = None
    vae: str | dict[str, Any] | None = None
    unet: str | dict[str, Any] | None = None
    features: dict[str, Any] = Field(default_factory=dict)
    """Sizes of the network that metrics look through: width, dimension, embedding (features)."""
    upscaler: str | dict[str, Any] | None = None
    discriminator: dict[str, int] | None = None
    """Its config; always starts afresh (upscaler_gan)."""
    temporal: Literal["none", "shift", "attention", "swap"] | None = None
    """The temporal mechanism; absent, that of the folder of unet. none trains every frame on its own."""
    shift_fraction: float | None = Field(default=None, ge=0.0, le=0.5)
    """Share of the channels that comes from each neighbour; absent, as the folder has it, or 0.25."""
    shift_placement: Literal["residual_start", "residual_end"] | None = None
    """Where in a ResNet block's branch channels shift; absent, as the folder has it, or residual_end."""
    swap: SwapOptions = SwapOptions()
    noise_schedule: NoiseScheduleOptions = NoiseScheduleOptions()
    trainable: list[str] = Field(default=["*"], min_length=1)
    """Names of the parameters to train, with * for any letters; the others stay as they are."""
    lora: LoraOptions | None = None
    """Train this alone, and write an adapter in place of a model (image, video)."""
    family: str | None = None
    """The well-known model that the folders will hold (ldm-text2img-large, sd15, sd21): --dry-run counts by its configs
    while they are not there. Training does not ask for it."""

    @field_validator("family")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in FAMILIES:
            raise ValueError(str(unknown_name("family", name, FAMILIES)))
        return name

    @model_validator(mode="after")
    def _swap_is_meant(self) -> ModelOptions:
        if self.temporal != "swap" and self.swap != SwapOptions():
            raise ValueError("swap: these are options of the mechanism swap; say temporal: swap with them")
        return self

    @model_validator(mode="after")
    def _lora_has_a_base(self) -> ModelOptions:
        if self.lora is None:
            return self
        if self.trainable != ["*"]:
            raise ValueError("lora: a LoRA trains its own parameters alone; leave trainable out")
        if not isinstance(self.unet, str):
            raise ValueError("lora: a LoRA changes a trained network; give its folder in unet")
        if self.temporal in ("attention", "swap"):
            raise ValueError(f"lora: temporal: {self.temporal} has tensors of its own, which no LoRA holds; use shift")
        return self

    @property
    def mechanism(self) -> dict[str, Any]:
        """Options of `VideoUNet` that the recipe decides."""
        own = self.model_dump(mode="json", include={"temporal", "shift_fraction", "shift_placement"}, exclude_none=True)
        return {**own, "swap": self.swap.model_dump(mode="json")} if self.temporal == "swap" else own

    @property
    def learning(self) -> list[str]:
        """Names of the parameters that learn: with `lora`, its own."""
        return ["*.lora_A.*", "*.lora_B.*"] if self.lora else self.trainable


class OptimizerOptions(Schema):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw_8bit keeps Adam's moments in 8 bits, 2 bytes a parameter in place of 8 (the extra optim8bit)."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; the paper's value is the default (facts: Adam, 5e-5, batch 256)."""
    final_learning_rate: float | None = Field(default=None, ge=0)
    """Cosine decay to this value at the end; constant when absent."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_samples: int = Field(default=0, ge=0)
    """Samples over which the rate rises linearly from 0."""
    max_grad_norm: float = Field(default=1.0, gt=0)


class ScheduleOptions(Schema):
    """Everything counts samples seen (clips, or images), over all processes."""

    total_samples: int = Field(gt=0)
    batch_size: int = Field(default=256, gt=0)
    """Global batch size, in samples; divides by the number of processes."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Samples that one process takes at a time, their gradients added up; all of its share when absent."""
    log_every: int = Field(default=1_000, gt=0)
    validate_every: int = Field(default=50_000, gt=0)
    """Held-out loss and previews."""
    checkpoint_every: int = Field(default=50_000, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)


class LossOptions(Schema):
    """What is minimised; each task reads its own."""

    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of captions replaced by the empty one, for classifier-free guidance (image, video)."""
    image_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the clips whose frames are trained on as images (video, features)."""
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Weigh timesteps by min(SNR, gamma) / SNR (arXiv 2303.09556, Sec. 3.4); evenly when absent (image, video)."""
    timestep_shift: float = Field(default=1.0, gt=0)
    """How far timesteps lean to noise: u uniform in (0, 1) becomes shift · u / (1 + (shift − 1) · u) (arXiv 2403.03206,
    Eq. 23); 1 is uniform (image, video)."""
    offset_noise: float = Field(default=0.0, ge=0)
    """Standard deviation of a noise that all pixels and frames of a clip share, added by channel (image, video)."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the autoencoder's Kullback-Leibler term (autoencoder)."""
    reading_weight: float = Field(default=1.0, ge=0)
    """Weight of reading each caption's words back from its features (text encoder)."""
    crop: int = Field(default=0, ge=0, multiple_of=8)
    """Pixels of a random crop's side, for cheaper steps; 0 trains on whole frames (autoencoder, upscaler)."""
    pixels: Literal["l1", "psnr"] = "l1"
    """Error of pixels: l1 is the mean absolute one; psnr, in dB, the logarithm of each frame's mean square, so that
    frames count alike whether much of them is lost or little, as HINet has it
    (arXiv 2105.06086) (upscaler; l1 alone for upscaler_gan)."""
    gan_weight: float = Field(default=0.1, ge=0)
    """Weight of deceiving the discriminator, beside the pixels' error (upscaler_gan)."""


class PreviewOptions(Schema):
    """Samples drawn while training, by the same pipeline as `timeloom generate`."""

    prompts: list[str] = Field(default_factory=list)
    """Prompts; held-out captions when empty."""
    num_inference_steps: int = Field(default=25, ge=1)
    guidance_scale: float = Field(default=4.0, ge=1)
    sampler: str = "dpm-solver++"


class EvaluationOptions(Schema):
    """Clips made and judged while training, as `timeloom evaluate` does, sampled as `preview` says."""

    protocol: Literal["digits"] = "digits"
    every: int = Field(gt=0)
    """Samples."""
    num_prompts: int = Field(default=64, ge=2)
    """Of the protocol; intervals of all metrics need 32."""


class Recipe(Schema):
    """A training run."""

    task: Literal["text_encoder", "autoencoder", "image", "video", "features", "upscaler", "upscaler_gan"]
    output: str
    """Folder of the run: checkpoints, log, previews, and the trained model in `model/`."""
    seed: int = 0
    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions
    loss: LossOptions = LossOptions()
    degradation: DegradationOptions = DegradationOptions()
    """How large clips become the small ones that an upscaler learns from."""
    preview: PreviewOptions = PreviewOptions()
    evaluation: EvaluationOptions | None = None
    """Judge clips while training (image, video)."""
    ema_half_life_samples: float = Field(default=0, ge=0)
    """Samples after which the moving average of the weights has half forgotten; 0 keeps no average."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the forward and backward pass; weights and optimizer are always fp32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How the network lies on several processes: whole on each, or in shards (FSDP2) where it is too large for that."""
    trackers: list[Literal["wandb", "trackio"]] = Field(default_factory=list)
    """Where the log goes beside stats.jsonl and TensorBoard; each is an extra of its name."""
    compile: bool = False
    """torch.compile the network: minutes at the start, faster steps after."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    workers: int = Field(default=2, ge=0)
    """Processes that read clips ahead of the network; 0 reads them in the loop, best where that takes no time."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.task == "image" and self.data.num_frames != 1:
            raise ValueError("data.num_frames: the image task trains on 1 frame")
        if self.task == "video" and self.data.num_frames < 2:
            raise ValueError("data.num_frames: the video task needs at least 2 frames")
        if self.model.lora and self.task not in ("image", "video"):
            raise ValueError(f"model.lora: only a U-Net is trained so (image, video), not the {self.task}")
        if self.evaluation and self.task not in ("image", "video"):
            raise ValueError(f"evaluation: only a U-Net makes clips (image, video), not the {self.task}")
        if self.loss.crop > min(self.data.height, self.data.width):
            raise ValueError("loss.crop: a crop cannot be larger than the frame")
        if self.task.startswith("upscaler") and self.parallel == "fsdp":
            raise ValueError("parallel: an upscaler is small and is trained by ddp")
        if self.task == "upscaler_gan" and self.loss.pixels != "l1":
            raise ValueError("loss.pixels: beside a discriminator the error of pixels is l1")
        if self.compile and self.parallel == "fsdp":
            raise ValueError("compile: cannot go with parallel: fsdp")
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, with `key.subkey=value` overrides in YAML syntax.

    Raises:
        TimeloomError: the file is not a recipe; an unknown key is named with the nearest known one.
    """
    return check(Recipe, read_yaml(path, overrides), path)
