"""Latent-Shift (arXiv 2304.08477) in one file: an image diffusion model becomes a video model without a new parameter.

    python examples/minimal_latent_shift.py                      # minutes on two CPU cores; writes minimal/*.mp4
    python examples/minimal_latent_shift.py --unet FOLDER        # starts from a U-Net trained before

1. Take a text-to-image U-Net. Here a small one is trained first, on single frames of moving handwriting; autoencoder
   and text encoder, frozen throughout, come from the package's zoo.
2. Put the temporal shift at the end of the residual branch of every ResNet block (Sec. 3.2, Fig. 3d).
3. Go on training on clips, with the same loss. The weights keep their names and shapes.
4. Sample: noise for all frames of a clip at once, denoised together.

The package does the same for any Stable Diffusion, with all that training and sampling need beside it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from rich.progress import track
from transformers import CLIPTextModel, CLIPTokenizer

from timeloom import zoo
from timeloom.data import DigitsSource, Window, write_video

FRAMES, FPS, SIDE = 16, 8.0, 64
SMALL_UNET = {
    "sample_size": 8,
    "block_out_channels": (48, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 96,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
PROMPTS = ["a red seven moves left on black", "a green zero moves down on white", "a blue one grows on gray"]


# The idea


def temporal_shift(features: torch.Tensor, frames: int) -> torch.Tensor:
    """Z'_i = [Z1_{i-1}, Z2_i, Z3_{i+1}], zeros beyond the clip's ends. (B·F, C, H, W) in and out."""
    clips = features.unflatten(0, (-1, frames))
    quarter = clips.shape[2] // 4
    shifted = torch.zeros_like(clips)
    shifted[:, 1:, :quarter] = clips[:, :-1, :quarter]  # a quarter of the channels comes from the frame before
    shifted[:, :, quarter:-quarter] = clips[:, :, quarter:-quarter]  # half of them stay
    shifted[:, :-1, -quarter:] = clips[:, 1:, -quarter:]  # a quarter comes from the frame after
    return shifted.flatten(0, 1)


class ShiftedConv(torch.nn.Conv2d):
    """The last convolution of a residual branch, and the shift. Its weights are a plain convolution's."""

    frames = 1  # of a clip; one for all layers

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return temporal_shift(super().forward(features), ShiftedConv.frames)


def add_temporal_shift(unet: UNet2DConditionModel) -> None:
    """From here on the U-Net sees clips: its batch is B·F frames, those of a clip next to each other."""
    names = list(unet.state_dict())
    for block in unet.modules():
        if isinstance(block, ResnetBlock2D):
            block.conv2.__class__ = ShiftedConv
    assert list(unet.state_dict()) == names  # not one new parameter


# What every latent diffusion model has


class Frozen:
    """Pixels to latents and back, and captions to features."""

    def __init__(self, folder: Path) -> None:
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).requires_grad_(False)
        self.text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")

    def encode(self, frames: np.ndarray) -> torch.Tensor:
        """uint8 (N, H, W, 3) to (N, 4, H/8, W/8)."""
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.vae.encode(pixels).latent_dist.mean * self.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    def read(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text(tokens)[0]


def train(unet: UNet2DConditionModel, frozen: Frozen, frames: int, clips: int, steps: int, rate: float) -> None:
    """Minimise the error of the predicted velocity; one caption in ten is dropped, for guidance."""
    window, source = Window(frames, FPS, SIDE, SIDE), DigitsSource("train")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rate / 20)
    random = np.random.default_rng(frames)
    for _ in track(range(steps), f"training on {'clips' if frames > 1 else 'images'}"):
        indices = random.integers(len(source), size=clips).tolist()
        pixels, captions = source.draw_batch(indices, window, random.random(clips).tolist())
        latents = frozen.encode(pixels.reshape(-1, SIDE, SIDE, 3))
        text = frozen.read(["" if random.random() < 0.1 else caption for caption in captions])
        noise, times = torch.randn_like(latents), torch.randint(SCHEDULE.config.num_train_timesteps, (clips,))
        times = times.repeat_interleave(frames)  # one time a clip
        noisy = SCHEDULE.add_noise(latents, noise, times)
        predicted = unet(noisy, times, text.repeat_interleave(frames, dim=0)).sample
        loss = F.mse_loss(predicted, SCHEDULE.get_velocity(latents, noise, times))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        decay.step()
    print(f"last loss {loss.item():.3f}")


@torch.no_grad()
def sample(unet: UNet2DConditionModel, frozen: Frozen, prompt: str, seed: int, guidance: float = 3.0) -> np.ndarray:
    """uint8 (F, H, W, 3)."""
    sampler = DPMSolverMultistepScheduler.from_config(SCHEDULE.config)
    sampler.set_timesteps(25)
    latents = torch.randn(FRAMES, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(seed))
    text = frozen.read([prompt, ""]).repeat_interleave(FRAMES, dim=0)
    for time in sampler.timesteps:
        wanted, any_other = unet(torch.cat([latents, latents]), time, text).sample.chunk(2)
        latents = sampler.step(any_other + guidance * (wanted - any_other), time, latents).prev_sample
    return frozen.decode(latents)


SCHEDULE = DDPMScheduler(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    prediction_type="v_prediction",  # the paper predicts the noise; the velocity needs fewer steps
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)


def main() -> None:
    """Image U-Net, shift, clips, samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, help="folder of a U-Net that predicts velocities (default: train one)")
    parser.add_argument("--image-steps", type=int, default=1500, help="steps of 64 frames (default: %(default)s)")
    parser.add_argument("--video-steps", type=int, default=1500, help="steps of 4 clips (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("minimal"), help="folder of the videos")
    options = parser.parse_args()
    torch.manual_seed(0)
    frozen = Frozen(zoo.resolve("digits-shift"))
    if options.unet:
        unet = UNet2DConditionModel.from_pretrained(options.unet)
    else:
        unet = UNet2DConditionModel(**SMALL_UNET)
        train(unet, frozen, frames=1, clips=64, steps=options.image_steps, rate=1e-3)
    add_temporal_shift(unet)
    ShiftedConv.frames = FRAMES
    train(unet, frozen, frames=FRAMES, clips=4, steps=options.video_steps, rate=5e-4)
    options.output.mkdir(parents=True, exist_ok=True)
    for seed, prompt in enumerate(PROMPTS):
        path = options.output / f"{prompt.replace(' ', '-')}.mp4"
        write_video(path, sample(unet, frozen, prompt, seed), fps=FPS, overwrite=True)
        print(path)


if __name__ == "__main__":
    main()
