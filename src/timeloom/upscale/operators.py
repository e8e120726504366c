"""What can happen to frames, each a function of tensors: (F, 3, H, W) in [0, 1], on any device, in and out.

Codecs are the real ones and run on the CPU. Whatever frames are given together get the same treatment; only noise, of
one level, is each frame's own.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from timeloom.upscale.kernels import Kernel

Resize = Literal["area", "bilinear", "bicubic"]
LUMA = (0.299, 0.587, 0.114)
"""BT.601: the gray of a colour."""


def blur(frames: Tensor, kernel: Kernel) -> Tensor:
    """Convolve with an odd kernel, edges mirrored; repeated where the frame is smaller than the kernel's reach.

    By Fourier transforms: kernels are large, and a convolution by sums took two to four times as long.
    """
    reach = len(kernel) // 2
    mode = "reflect" if reach < min(frames.shape[-2:]) else "replicate"
    padded = F.pad(frames, [reach] * 4, mode=mode)
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(torch.from_numpy(kernel).to(frames), s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * reach :, 2 * reach :]  # before that, the edges wrap around


def resize(frames: Tensor, size: tuple[int, int], mode: Resize) -> Tensor:
    """To (height, width): area averages what becomes smaller, the other two take the nearest pixels alone."""
    if mode == "area":
        return F.interpolate(frames, size, mode="area")
    return F.interpolate(frames, size, mode=mode, align_corners=False)


def gaussian_noise(frames: Tensor, sigma: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add normal noise of `sigma` gray levels of 255, the same for all colours where `gray`."""
    channels = 1 if gray else 3
    noise = torch.randn((len(frames), channels, *frames.shape[-2:]), generator=generator)
    return (frames + noise.to(frames) * (sigma / 255)).clamp(0, 1)


def poisson_noise(frames: Tensor, scale: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add `scale` times the shot noise of as many photons as the clip has gray levels, rounded up to a power of 2."""
    seen = to_gray(frames) if gray else frames
    levels = (seen.clamp(0, 1) * 255).round() / 255
    photons = 2.0 ** np.ceil(np.log2(max(2, len(torch.unique(levels)))))
    shot = torch.poisson(levels.cpu() * photons, generator=generator) / photons
    return (frames + scale * (shot.to(frames) - levels)).clamp(0, 1)


def to_gray(frames: Tensor) -> Tensor:
    """(F, 1, H, W)."""
    return (frames * torch.tensor(LUMA).to(frames)[:, None, None]).sum(dim=1, keepdim=True)


def jpeg(frames: Tensor, quality: int) -> Tensor:
    """Through a JPEG file of `quality` 1 … 95, colour at half resolution, each frame."""
    decoded = []
    for image in _to_bytes(frames):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return _from_bytes(np.stack(decoded), frames)


def h264(frames: Tensor, crf: int) -> Tensor:
    """Through an H.264 stream of constant rate factor `crf` 0 … 51 (more is worse), as x264 makes it by default."""
    count, _, height, width = frames.shape
    images = np.pad(_to_bytes(frames), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = images.shape[1:3]
    encoder.pix_fmt, encoder.framerate, encoder.thread_count = "yuv420p", 8, 1
    encoder.options = {"crf": str(crf), "preset": "veryfast"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    shown = [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in images]
    packets = [packet for frame in (*shown, None) for packet in encoder.encode(frame)]
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    assert len(decoded) == count
    pixels = np.stack([frame.to_ndarray(format="rgb24")[:height, :width] for frame in decoded])
    return _from_bytes(pixels, frames)


def round_trip(frames: Tensor, coder: Callable[[Tensor], Tensor], multiple: int) -> Tensor:
    """Through an autoencoder, `coder`, whose frames have sides that are multiples of `multiple`; edges are repeated."""
    height, width = frames.shape[-2:]
    padded = F.pad(frames, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return coder(padded).to(frames)[..., :height, :width].clamp(0, 1)


def _to_bytes(frames: Tensor) -> np.ndarray:
    """uint8 (F, H, W, 3)."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _from_bytes(images: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(like) / 255
