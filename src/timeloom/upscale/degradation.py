"""How a clip gets worse: Real-ESRGAN's second-order degradations (arXiv 2107.10833), and what video adds to them.

    degradation = sample_degradation(DegradationOptions(), seed=7)
    small = degradation(large, scale=4)             # (F, 3, H, W) in [0, 1] → (F, 3, H/4, W/4)
    print(degradation.to_json())

All is drawn once a clip: kernels, factors, noise levels and qualities are the same for all its frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from timeloom.schema import Schema
from timeloom.upscale import operators
from timeloom.upscale.kernels import SHAPES, Kernel, Shape, blur_kernel, sinc_kernel
from timeloom.upscale.operators import Resize

Range = tuple[float, float]


class StageOptions(Schema):
    """One of the two stages: blur, resize, noise, compression. Numbers of the paper's first stage by default."""

    blur: float = Field(default=1.0, ge=0, le=1)
    """Share of the clips that are blurred."""
    sinc: float = Field(default=0.1, ge=0, le=1)
    """Of those, the share whose kernel is the ringing sinc; the others' have `shapes`."""
    sigma: Range = (0.2, 3.0)
    """Pixels, along each of a kernel's axes."""
    up_down_keep: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Shares of the clips that become larger, smaller, or keep their size."""
    factor: Range = (0.15, 1.5)
    """The smallest and the largest factor of size."""
    gaussian_noise: Range = (1.0, 30.0)
    """Standard deviation in gray levels of 255, of the half of the clips that get this noise."""
    poisson_noise: Range = (0.05, 3.0)
    """Shot noise in multiples of its natural size, of the other half."""
    gray_noise: float = Field(default=0.4, ge=0, le=1)
    """Share of the clips whose noise has no colour."""
    jpeg_quality: tuple[int, int] = (30, 95)

    @model_validator(mode="after")
    def _in_order(self) -> StageOptions:
        for name in ("sigma", "factor", "gaussian_noise", "poisson_noise", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}: a range is two numbers, the smaller first, not {low} to {high}")
        if self.sigma[0] == 0 or self.factor[0] == 0:
            raise ValueError("sigma, factor: must be above 0")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 95:
            raise ValueError("jpeg_quality: lies in 1 … 95")
        if not 0 <= self.factor[0] <= 1 <= self.factor[1]:
            raise ValueError("factor: 1, the size that is kept, must lie between the two")
        if min(self.up_down_keep) < 0 or sum(self.up_down_keep) <= 0:
            raise ValueError("up_down_keep: shares are at least 0, and not all 0")
        return self


class DegradationOptions(Schema):
    """What a clip may go through before it is small. The paper's two stages by default; the last three are ours."""

    first: StageOptions = StageOptions()
    second: StageOptions = StageOptions(
        blur=0.8,
        sigma=(0.2, 1.5),
        up_down_keep=(0.3, 0.4, 0.3),
        factor=(0.3, 1.2),
        gaussian_noise=(1.0, 25.0),
        poisson_noise=(0.05, 2.5),
    )
    """Factors are of the small size; its compression stands before or after the last sinc, as often."""
    shapes: tuple[float, float, float] = (0.70, 0.15, 0.15)
    """Shares of kernels: Gaussian, generalised Gaussian, plateau."""
    isotropic: tuple[float, float, float] = (0.643, 0.8, 0.8)
    """Of each shape, the share that is the same in all directions: 0.45 of 0.70, 0.12 of 0.15."""
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    kernel_sizes: tuple[int, int] = (7, 21)
    """Odd sizes between these, in pixels."""
    last_sinc: float = Field(default=0.8, ge=0, le=1)
    """Share of the clips that ring at the end."""
    h264: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips whose last compression is H.264, frame after frame, in place of JPEG."""
    h264_crf: tuple[int, int] = (18, 35)
    """Its constant rate factor, 0 … 51; more is worse."""
    autoencoder: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips that at last go through an image autoencoder (the recipe's model.vae): what generated frames
    look like."""

    @model_validator(mode="after")
    def _in_order(self) -> DegradationOptions:
        for name in ("generalised_beta", "plateau_beta", "kernel_sizes", "h264_crf"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}: a range is two numbers, the smaller first, not {low} to {high}")
        if min(self.shapes) < 0 or sum(self.shapes) <= 0:
            raise ValueError("shapes: shares are at least 0, and not all 0")
        if not all(0 <= share <= 1 for share in self.isotropic):
            raise ValueError("isotropic: shares lie in 0 … 1")
        if any(size % 2 == 0 for size in self.kernel_sizes):
            raise ValueError("kernel_sizes: must be odd")
        if self.h264_crf[1] > 51:
            raise ValueError("h264_crf: lies in 0 … 51")
        return self


@dataclass(frozen=True)
class Blur:
    """A kernel by its parameters."""

    shape: str
    """gaussian, generalised, plateau or sinc."""
    size: int
    sigmas: Range = (0.0, 0.0)
    angle: float = 0.0
    beta: float = 1.0
    cutoff: float = 0.0
    """Of a sinc, in radians a pixel."""

    @property
    def kernel(self) -> Kernel:
        if self.shape == "sinc":
            return sinc_kernel(self.size, self.cutoff)
        return blur_kernel(cast(Shape, self.shape), self.size, self.sigmas, self.angle, self.beta)


@dataclass(frozen=True)
class Stage:
    """What one stage does to a clip."""

    blur: Blur | None
    factor: float
    mode: Resize
    noise: str
    """gaussian or poisson."""
    noise_level: float
    gray_noise: bool
    jpeg_quality: int


@dataclass(frozen=True)
class Degradation:
    """All that happens to one clip; the same numbers do the same to the same frames, noise included."""

    first: Stage
    second: Stage
    last_mode: Resize
    """How it comes to its final size."""
    last_sinc: Blur | None
    sinc_first: bool
    """Whether the last sinc stands before the last compression, or after it."""
    h264_crf: int | None
    """None: the last compression is JPEG, of the second stage's quality."""
    autoencoder: bool
    seed: int
    """Of the noise."""

    def to_json(self) -> dict[str, Any]:
        """Every parameter."""
        return asdict(self)

    def __call__(
        self, frames: Tensor, scale: int, coder: Callable[[Tensor], Tensor] | None = None, multiple: int = 8
    ) -> Tensor:
        """Degrade (F, 3, H, W) in [0, 1] to (F, 3, H/scale, W/scale), in steps of 1/255.

        Args:
            frames: sides that divide by `scale`.
            scale: how many times smaller.
            coder: an autoencoder's round trip on frames in [0, 1], for a degradation that has one.
            multiple: what the sides of its frames must be multiples of.

        Raises:
            ValueError: sides that do not divide, or an autoencoder is asked for and none given.
        """
        height, width = frames.shape[-2:]
        if height % scale or width % scale:
            raise ValueError(f"{width}x{height} frames cannot become {scale} times smaller")
        if self.autoencoder and coder is None:
            raise ValueError("this degradation needs an autoencoder")
        small = height // scale, width // scale
        generator = torch.Generator().manual_seed(self.seed)
        x = self._stage(self.first, frames, (height, width), generator)
        x = operators.jpeg(x, self.first.jpeg_quality)
        x = self._stage(self.second, x, small, generator)
        x = self._compress(self._finish(x, small)) if self.sinc_first else self._finish(self._compress(x), small)
        if self.autoencoder and coder is not None:
            x = operators.round_trip(x, coder, multiple)
        return (x.clamp(0, 1) * 255).round() / 255

    @staticmethod
    def _stage(stage: Stage, x: Tensor, whole: tuple[int, int], generator: torch.Generator) -> Tensor:
        if stage.blur is not None:
            x = operators.blur(x, stage.blur.kernel)
        x = operators.resize(
            x, (max(1, int(whole[0] * stage.factor)), max(1, int(whole[1] * stage.factor))), stage.mode
        )
        noise = operators.gaussian_noise if stage.noise == "gaussian" else operators.poisson_noise
        return noise(x, stage.noise_level, stage.gray_noise, generator)

    def _finish(self, x: Tensor, small: tuple[int, int]) -> Tensor:
        x = operators.resize(x, small, self.last_mode)
        return x if self.last_sinc is None else operators.blur(x, self.last_sinc.kernel)

    def _compress(self, x: Tensor) -> Tensor:
        if self.h264_crf is not None:
            return operators.h264(x, self.h264_crf)
        return operators.jpeg(x, self.second.jpeg_quality)


def sample_degradation(options: DegradationOptions, seed: int) -> Degradation:
    """What clip `seed` goes through."""
    rng = np.random.default_rng(seed)
    first, second = (_sample_stage(stage, options, rng) for stage in (options.first, options.second))
    return Degradation(
        first=first,
        second=second,
        last_mode=_mode(rng),
        last_sinc=_sinc(options, rng, narrow=True) if rng.random() < options.last_sinc else None,
        sinc_first=bool(rng.random() < 0.5),
        h264_crf=int(rng.integers(*options.h264_crf, endpoint=True)) if rng.random() < options.h264 else None,
        autoencoder=bool(rng.random() < options.autoencoder),
        seed=int(rng.integers(2**62)),
    )


def _sample_stage(stage: StageOptions, options: DegradationOptions, rng: np.random.Generator) -> Stage:
    noise = "gaussian" if rng.random() < 0.5 else "poisson"
    return Stage(
        blur=_blur(stage, options, rng) if rng.random() < stage.blur else None,
        factor=_factor(stage, rng),
        mode=_mode(rng),
        noise=noise,
        noise_level=float(rng.uniform(*(stage.gaussian_noise if noise == "gaussian" else stage.poisson_noise))),
        gray_noise=bool(rng.random() < stage.gray_noise),
        jpeg_quality=int(rng.integers(*stage.jpeg_quality, endpoint=True)),
    )


def _blur(stage: StageOptions, options: DegradationOptions, rng: np.random.Generator) -> Blur:
    if rng.random() < stage.sinc:
        return _sinc(options, rng)
    shape = int(rng.choice(len(SHAPES), p=np.array(options.shapes) / sum(options.shapes)))
    across = float(rng.uniform(*stage.sigma))
    same = rng.random() < options.isotropic[shape]
    return Blur(
        SHAPES[shape],
        _size(options, rng),
        sigmas=(across, across if same else float(rng.uniform(*stage.sigma))),
        angle=0.0 if same else float(rng.uniform(-np.pi, np.pi)),
        beta=_beta(((1.0, 1.0), options.generalised_beta, options.plateau_beta)[shape], rng),
    )


def _beta(limits: Range, rng: np.random.Generator) -> float:
    """Below 1 as often as above it, where the limits allow it (the authors' code)."""
    middle = min(max(1.0, limits[0]), limits[1])
    return float(rng.uniform(*((limits[0], middle) if rng.random() < 0.5 else (middle, limits[1]))))


def _sinc(options: DegradationOptions, rng: np.random.Generator, narrow: bool = False) -> Blur:
    """Small kernels need a higher cutoff; of the last sinc, all have it (the authors' code)."""
    size = _size(options, rng)
    lowest = np.pi / 3 if narrow or size < 13 else np.pi / 5
    return Blur("sinc", size, cutoff=float(rng.uniform(lowest, np.pi)))


def _size(options: DegradationOptions, rng: np.random.Generator) -> int:
    smallest, largest = options.kernel_sizes
    return smallest + 2 * int(rng.integers((largest - smallest) // 2, endpoint=True))


def _factor(stage: StageOptions, rng: np.random.Generator) -> float:
    shares = np.array(stage.up_down_keep) / sum(stage.up_down_keep)
    ranges = ((1.0, stage.factor[1]), (stage.factor[0], 1.0), (1.0, 1.0))
    return float(rng.uniform(*ranges[int(rng.choice(3, p=shares))]))


def _mode(rng: np.random.Generator) -> Resize:
    modes = get_args(Resize)
    return modes[int(rng.integers(len(modes)))]
