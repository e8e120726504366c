"""The pipeline: prompts become latents, latents become frames.

    pipe = TextToVideoPipeline.from_pretrained("digits-shift")
    frames = pipe(["a red seven moves left"], seeds=[0]).frames     # uint8 (1, 16, 64, 64, 3)

Axes: B clips, F frames, N = B·F, C channels, H, W height and width (of latents, for latents), L tokens, D text width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from einops import rearrange
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from timeloom.adapters import read_adapter
from timeloom.errors import TimeloomError, unknown_name
from timeloom.generate import model_folder, prompts
from timeloom.generate.schedulers import make_scheduler, scheduler_name, step_arguments
from timeloom.model_files import load_tokenizer, quiet_libraries, text_encoder_of
from timeloom.models.unet import VideoUNet
from timeloom.upscaler import Upscaler, to_bytes

MAX_FRAMES = 1024
OUTPUT_TYPES = ("np", "latent")
DEFAULTS = ("num_frames", "fps", "height", "width", "num_inference_steps", "guidance_scale", "sampler")

StepCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | None]

logger = logging.getLogger(__name__)


class NonFiniteError(TimeloomError):
    """Latents or pixels that are infinite or not a number. They never become a video."""


@dataclass(frozen=True)
class VideoOutput:
    """What the pipeline made."""

    frames: Any
    """uint8 (B, F, H, W, 3) RGB; or, with output_type="latent", a tensor (B, F, C, H, W)."""
    seeds: list[int]
    """One a clip: the same seed, prompt and settings make the same clip again."""
    fps: float
    """Frames per second that the model was trained at."""


class TextToVideoPipeline(DiffusionPipeline):
    """A text-to-video model in Stable Diffusion's parts, with its own defaults in `model_index.json`.

    Args:
        vae: autoencoder between pixels and latents, frame by frame.
        text_encoder: one text a clip.
        tokenizer: of the text encoder.
        unet: the denoiser over clips.
        scheduler: any diffusers scheduler; it carries the training schedule.
        num_frames: default length of a clip.
        fps: frames per second of the clips that the model was trained on.
        height, width: default size in pixels; None takes the U-Net's `sample_size`.
        num_inference_steps: default number of denoising steps.
        guidance_scale: default strength of classifier-free guidance; 1 switches it off.
        sampler: "ddpm", "ddim", "dpm-solver++" or "unipc", on the training schedule of `scheduler`; None keeps it.

    Raises:
        TimeloomError: an unknown sampler, or parts that do not fit each other.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: VideoUNet,
        scheduler: SchedulerMixin,
        num_frames: int = 16,
        fps: float = 8.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        sampler: str | None = None,
    ) -> None:
        super().__init__()
        _require_fit("text", "hidden_size", text_encoder.config.hidden_size, unet.config.cross_attention_dim)
        _require_fit("latents", "latent_channels", vae.config.latent_channels, unet.config.in_channels)
        if sampler not in (None, scheduler_name(scheduler)) or scheduler.config.get("clip_sample"):
            scheduler = make_scheduler(sampler or scheduler_name(scheduler), scheduler.config)
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.pixels_per_latent = 2 ** (len(vae.config.block_out_channels) - 1)
        sample_size = unet.config.sample_size or 64
        latent_height, latent_width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        self.register_to_config(
            num_frames=num_frames,
            fps=float(fps),
            height=height or latent_height * self.pixels_per_latent,
            width=width or latent_width * self.pixels_per_latent,
            num_inference_steps=num_inference_steps,
            guidance_scale=float(guidance_scale),
            sampler=scheduler_name(scheduler),
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        variant: str | None = None,
        adapter: str | Path | None = None,
        adapter_scale: float = 1.0,
        **components: Any,
    ) -> TextToVideoPipeline:
        """Load a model: a zoo name, a folder, or a Hub id that is already in the local cache. Nothing is downloaded.

        Plain Stable Diffusion 1.x/2.x folders load too; parts beside the five (a safety checker, ...) are left out.

        Args:
            pretrained_model_name_or_path: the model.
            dtype: numbers that the networks compute in, whatever the files store.
            variant: "fp16" loads `*.fp16.safetensors`.
            adapter: file or folder of a change to add to the U-Net's weights, with the temporal mechanism and the
                defaults that it goes with.
            adapter_scale: how much of it; 0 leaves the weights as they are.
            components: ready-made parts or other defaults, by the names of `__init__`.

        Raises:
            TimeloomError: an unknown model, pickled weights, a folder that is not whole (see `model_folder`), or an
                adapter that does not fit it.
        """
        dtype = components.pop("torch_dtype", None) or dtype
        folder = model_folder.find_model(pretrained_model_name_or_path)
        index = model_folder.check_layout(folder)
        change = None if adapter is None else read_adapter(adapter)
        if change and "unet" in components:
            raise ValueError("an adapter changes the folder's own U-Net; give one of the two")
        with quiet_libraries():
            if change:
                unet = model_folder.load_adapted_unet(folder, index, dtype, variant, change, adapter_scale)
                components = {**change.use.defaults, "unet": unet, **components}
            for part in model_folder.NETWORKS:
                if part not in components:
                    components[part] = model_folder.load_part(folder, index, part, dtype, variant)
            components.setdefault("tokenizer", load_tokenizer(text_encoder_of(folder, index), folder / "tokenizer"))
            if "scheduler" in components:
                index.pop("sampler", None)  # the caller's scheduler is the sampler
            else:
                components["scheduler"] = model_folder.load_scheduler(folder, index)
        defaults = {name: index[name] for name in DEFAULTS if name in index}
        pipe = cls(**{**defaults, **components})
        pipe.register_to_config(_name_or_path=folder.name)
        return pipe

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write the model as a Stable Diffusion folder, safetensors alone, the sampler in use being its default."""
        # The index names diffusers' own class for the U-Net, so that any tool loads the folder: its weights fit both.
        self.register_to_config(sampler=scheduler_name(self.scheduler), unet=("diffusers", "UNet2DConditionModel"))
        with quiet_libraries():
            super().save_pretrained(save_directory, **{**options, "safe_serialization": True})

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seeds: Sequence[int] | None = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        callback_on_step_end: StepCallback | None = None,
        decode_chunk_size: int = 16,
        upscaler: Upscaler | None = None,
    ) -> VideoOutput:
        """Make one clip for each prompt. Arguments left at None take the model's own defaults.

        Args:
            prompt: one text, or one for each clip.
            negative_prompt: what guidance leads away from; one text for all clips, or one for each.
            num_frames: 1 ... 1024; 1 makes an image.
            height, width: pixels, multiples of the autoencoder's factor (8 for Stable Diffusion).
            num_inference_steps: denoising steps, at most as many as the model was trained with.
            guidance_scale: 1 or less: no guidance.
            seeds: one for each clip (default 0, 1, ...). All noise of a clip comes from its seed. It does not depend on
                its batch mates, but for the rounding of matrix products at another batch size.
            latents: starting noise (B, F, C, H, W) in place of the seeds' own.
            output_type: "np" or "latent".
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": ...}) after each step; "latents" in
                the dictionary that it returns go on in place of ours.
            decode_chunk_size: frames that are decoded at once; fewer need less memory.
            upscaler: makes the decoded frames larger, on its own device.

        Raises:
            NonFiniteError: latents or pixels are not finite; says at which step.
            TimeloomError: any argument that makes no sense, an empty prompt.
        """
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = _one_each(negative_prompt or "", len(texts), "negative prompts")
        seeds = list(range(len(texts)) if seeds is None else seeds)
        if len(seeds) != len(texts):
            raise TimeloomError(f"{len(texts)} prompt(s) came with {len(seeds)} seeds: give one seed for each clip.")
        if output_type not in OUTPUT_TYPES:
            raise unknown_name("output type", output_type, OUTPUT_TYPES)
        steps = self._steps(num_inference_steps)
        guidance = self.config.guidance_scale if guidance_scale is None else float(guidance_scale)
        shape = self._latent_shape(num_frames, height, width)
        for text in texts:
            prompts.require_prompt(text)

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        if latents is None:
            latents = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        elif latents.shape != (len(texts), *shape):
            raise TimeloomError(f"The latents have shape {tuple(latents.shape)}, not {(len(texts), *shape)}.")
        text_BLD = self.encode_text([*negatives, *texts] if guidance > 1 else texts)
        latents = self._denoise(latents, text_BLD, steps, guidance, generators, callback_on_step_end)
        frames = latents if output_type == "latent" else self.decode(latents, decode_chunk_size, upscaler)
        self.maybe_free_model_hooks()
        return VideoOutput(frames, seeds, self.config.fps)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text features (B, L, D) as the U-Net reads them. A text too long is cut, and a warning says where."""
        length = prompts.text_length(self.tokenizer, self.text_encoder.config.max_position_embeddings)
        for text in dict.fromkeys(texts):
            if cut := prompts.words_cut(self.tokenizer, text, length):
                logger.warning("The prompt is longer than %d tokens; the model does not see: %r", length - 2, cut)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(tokens.to(self._execution_device)).last_hidden_state

    def decode(self, latents: Tensor, chunk_size: int = 16, upscaler: Upscaler | None = None) -> np.ndarray:
        """Latents (B, F, C, H, W) of the U-Net become uint8 pixels (B, F, H, W, 3), `chunk_size` frames at once, larger
        with an `upscaler`.

        Raises:
            NonFiniteError: pixels that are not finite.
        """
        if chunk_size < 1:
            raise TimeloomError(f"At least 1 frame must be decoded at once, not {chunk_size}.")
        config = self.vae.config
        latents_NCHW = latents.flatten(0, 1) / config.scaling_factor + (config.shift_factor or 0.0)
        chunks = []
        for chunk in latents_NCHW.to(self.vae.dtype).split(chunk_size):
            pixels = self.vae.decode(chunk).sample.float()
            _require_finite(pixels, "pixels", "while decoding")
            images = (pixels / 2 + 0.5).clamp(0, 1)
            chunks.append(to_bytes(images if upscaler is None else upscaler(images)))
        return rearrange(np.concatenate(chunks), "(b f) h w c -> b f h w c", f=latents.shape[1])

    def _denoise(
        self,
        noise: Tensor,
        text_BLD: Tensor,
        num_steps: int,
        guidance_scale: float,
        generators: list[torch.Generator],
        callback: StepCallback | None,
    ) -> Tensor:
        """From noise to latents, both (B, F, C, H, W) in fp32; for guidance, `text_BLD` holds the negatives first."""
        device = self._execution_device
        self.scheduler.set_timesteps(num_steps, device=device)
        latents = noise.to(device, torch.float32) * self.scheduler.init_noise_sigma
        extra = step_arguments(self.scheduler, generators)
        guided = len(text_BLD) > len(latents)
        text_BLD = text_BLD.to(self.unet.dtype)
        timesteps = self.scheduler.timesteps
        with self.progress_bar(total=len(timesteps)) as progress:
            for step, timestep in enumerate(timesteps):
                where = f"at step {step + 1} of {len(timesteps)} (timestep {float(timestep):g})"
                seen = self.scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
                prediction = self.unet(seen.to(self.unet.dtype), timestep, text_BLD).sample.float()
                _require_finite(prediction, "the U-Net's prediction", where)
                if guided:  # Ho & Salimans 2022, eq. 6, in Stable Diffusion's form
                    negative, positive = prediction.chunk(2)
                    prediction = negative + guidance_scale * (positive - negative)
                latents = self.scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
                if callback is not None:
                    latents = (callback(self, step, timestep, {"latents": latents}) or {}).get("latents", latents)
                _require_finite(latents, "latents", where)
                progress.update()
        return latents

    def _steps(self, num_steps: int | None) -> int:
        steps = self.config.num_inference_steps if num_steps is None else num_steps
        most = self.scheduler.config.num_train_timesteps
        if not 1 <= steps <= most:
            raise TimeloomError(
                f"The number of steps must be from 1 to {most} (the model's training steps), not {steps}."
            )
        return int(steps)

    def _latent_shape(self, num_frames: int | None, height: int | None, width: int | None) -> tuple[int, int, int, int]:
        """(F, C, H, W) of one clip's latents, after checking what was asked for."""
        frames = self.config.num_frames if num_frames is None else num_frames
        if not 1 <= frames <= MAX_FRAMES:
            raise TimeloomError(
                f"The number of frames must be from 1 (an image) to {MAX_FRAMES}, not {frames}: "
                "a clip is denoised as a whole, and a longer one fits no memory."
            )
        factor = self.pixels_per_latent
        height = self.config.height if height is None else height
        width = self.config.width if width is None else width
        for name, size in (("height", height), ("width", width)):
            if size < factor or size % factor:
                nearest = max(factor, round(size / factor) * factor)
                raise TimeloomError(
                    f"The {name} must be a multiple of {factor} pixels, not {size}; the nearest is {nearest}."
                )
        return int(frames), self.unet.config.in_channels, height // factor, width // factor


def _one_each(text: str | Sequence[str], count: int, what: str) -> list[str]:
    texts = [text] * count if isinstance(text, str) else list(text)
    if len(texts) != count:
        raise TimeloomError(f"{count} prompt(s) came with {len(texts)} {what}: give one, or one for each.")
    return texts


def _require_fit(what: str, name: str, given: int, wanted: int) -> None:
    if given != wanted:
        raise TimeloomError(
            f"The parts of the model do not fit: {what} come with {name} {given}, and the U-Net takes {wanted}."
        )


def _require_finite(tensor: Tensor, name: str, where: str) -> None:
    if not torch.isfinite(tensor).all():
        raise NonFiniteError(
            f"Values that are not finite in {name} {where}. Nothing is made of them; "
            "try fp32 precision or a lower guidance scale."
        )
