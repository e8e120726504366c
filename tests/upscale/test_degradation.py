import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import convolve

from timeloom.upscale import operators
from timeloom.upscale.degradation import DegradationOptions, StageOptions, sample_degradation
from timeloom.upscale.degrader import Degrader
from timeloom.upscale.kernels import blur_kernel


def clip(frames: int = 3, height: int = 32, width: int = 40) -> torch.Tensor:
    """Something smooth that moves."""
    y, x = torch.meshgrid(torch.arange(height) / 8, torch.arange(width) / 8, indexing="ij")
    waves = [torch.stack([torch.sin(x + t), torch.cos(y - t), torch.sin(x * y / 4 + t)]) for t in range(frames)]
    return (torch.stack(waves) / 2.2 + 0.5).float()


def test_blur_is_a_convolution_with_mirrored_edges() -> None:
    kernel = blur_kernel("gaussian", 7, (2.0, 0.7), 0.4)
    kernel[0, 1] += 0.1  # no symmetry that could hide a flip
    frames = clip()
    plain = convolve(frames[1, 2].double().numpy(), kernel, mode="mirror")
    np.testing.assert_allclose(operators.blur(frames, kernel)[1, 2].numpy(), plain, atol=1e-5)
    assert operators.blur(frames[..., :1, :1], kernel).shape == (3, 3, 1, 1)


def test_area_averages_and_sizes_are_as_asked() -> None:
    frames = clip()
    small = operators.resize(frames, (8, 10), "area")
    torch.testing.assert_close(small, frames.unflatten(-1, (10, 4)).unflatten(-3, (8, 4)).mean(dim=(-1, -3)))
    for mode in ("area", "bilinear", "bicubic"):
        assert operators.resize(frames, (13, 7), mode).shape == (3, 3, 13, 7)


@pytest.mark.parametrize("gray", [True, False])
def test_noise_has_its_level_and_frames_differ(gray: bool) -> None:
    still = torch.full((4, 3, 64, 64), 0.5)
    noise = operators.gaussian_noise(still, 10, gray, torch.Generator().manual_seed(1)) - still
    assert noise.std().item() * 255 == pytest.approx(10, rel=0.03)
    assert torch.equal(noise[:, 0], noise[:, 1]) == gray
    assert not torch.equal(noise[0], noise[1])
    shot = operators.poisson_noise(still, 1.0, gray, torch.Generator().manual_seed(1)) - still
    photons = 2  # one gray level; at least 2
    level = round(0.5 * 255) / 255
    assert shot.std().item() < (level / photons) ** 0.5 + 0.01  # clamped at 0 and 1
    assert torch.equal(shot[:, 0], shot[:, 1]) == gray


def test_poisson_noise_grows_with_light_and_scale() -> None:
    ramp = torch.linspace(0, 1, 256).expand(8, 3, 64, 256)
    draws = [operators.poisson_noise(ramp, s, False, torch.Generator().manual_seed(0)) - ramp for s in (0.5, 1.0)]
    dark, light = draws[1][..., 40:60].std().item(), draws[1][..., 150:170].std().item()
    assert light / dark == pytest.approx((160 / 50) ** 0.5, rel=0.05)
    assert draws[1][..., 50:200].std().item() / draws[0][..., 50:200].std().item() == pytest.approx(2, rel=0.05)
    assert draws[1][..., 100].std().item() == pytest.approx((100 / 255 / 256) ** 0.5, rel=0.1)


def test_jpeg_is_the_real_encoders() -> None:
    frames = clip()
    bytes_ = (frames[1].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(bytes_).save(file, "JPEG", quality=40)
    made = operators.jpeg(frames, 40)
    assert np.array_equal((made[1].permute(1, 2, 0) * 255).round().numpy(), np.asarray(Image.open(file)))
    errors = [(operators.jpeg(frames, q) - frames).abs().mean().item() for q in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("size", [(32, 40), (17, 13), (1, 1)])
def test_h264_keeps_number_and_size_and_gets_worse_with_crf(size: tuple[int, int]) -> None:
    frames = clip(5)[..., : size[0], : size[1]]
    errors = [(operators.h264(frames, crf) - frames).abs().mean().item() for crf in (5, 45)]
    assert operators.h264(frames, 20).shape == frames.shape
    assert errors[0] < errors[1] or size == (1, 1)
    assert errors[0] < 0.04


def test_an_autoencoder_sees_sides_that_it_can_take() -> None:
    seen = []

    def coder(frames: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(frames.shape[-2:]))
        return frames * 0.5

    frames = clip()[..., :9, :17]
    torch.testing.assert_close(operators.round_trip(frames, coder, 8), frames * 0.5)
    assert seen == [(16, 24)]


def test_a_seed_is_a_degradation_whose_parameters_can_be_logged() -> None:
    options = DegradationOptions(h264=0.5)
    frames, small = clip(), []
    for seed in range(12):
        degradation = sample_degradation(options, seed)
        assert degradation == sample_degradation(options, seed)
        assert json.loads(json.dumps(degradation.to_json()))["seed"] == degradation.seed
        made = degradation(frames, 4)
        assert torch.equal(made, degradation(frames, 4))
        assert made.shape == (3, 3, 8, 10) and made.min() >= 0 and made.max() <= 1
        torch.testing.assert_close(made * 255, (made * 255).round(), atol=1e-4, rtol=0)
        small.append(made)
    assert len({made.numpy().tobytes() for made in small}) == 12
    drawn = [sample_degradation(options, seed) for seed in range(400)]
    assert {d.first.blur.shape for d in drawn} == {"gaussian", "generalised", "plateau", "sinc"}
    assert 0.4 < np.mean([d.h264_crf is not None for d in drawn]) < 0.6
    assert 0.72 < np.mean([d.second.blur is not None for d in drawn]) < 0.88
    assert {d.first.mode for d in drawn} == {"area", "bilinear", "bicubic"}
    assert all(0.15 <= d.first.factor <= 1.5 and 1 <= d.first.jpeg_quality <= 95 for d in drawn)
    isotropic = [d.first.blur.sigmas[0] == d.first.blur.sigmas[1] for d in drawn if d.first.blur.shape != "sinc"]
    assert np.mean(isotropic) == pytest.approx(0.69, abs=0.07)  # 0.45 + 0.12 + 0.12 of the authors' six kinds


def test_all_frames_of_a_clip_get_the_same_and_a_still_scene_stays_still_without_noise() -> None:
    quiet = StageOptions(gaussian_noise=(0, 0), poisson_noise=(0, 0))
    options = DegradationOptions(first=quiet, second=quiet)
    still = clip(1).expand(4, -1, -1, -1)
    for seed in range(6):
        small = sample_degradation(options, seed)(still, 4)
        assert torch.equal(small[0], small[3])


def test_clips_of_a_batch_are_degraded_alone_and_in_fp32_under_autocast() -> None:
    degrader = Degrader(DegradationOptions(), 2)
    clips = torch.stack([clip(), clip().flip(-1)])
    together = degrader(clips, [5, 6])
    assert torch.equal(together[1], degrader(clips[1:], [6])[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrader(clips, [5, 6]), together)


def test_what_cannot_be_is_refused() -> None:
    degradation = sample_degradation(DegradationOptions(autoencoder=1), 0)
    with pytest.raises(ValueError, match="autoencoder"):
        degradation(clip(), 4)
    with pytest.raises(ValueError, match="autoencoder"):
        Degrader(DegradationOptions(autoencoder=1), 4)
    with pytest.raises(ValueError, match="times smaller"):
        sample_degradation(DegradationOptions(), 0)(clip(1, 30, 40), 4)
    wrong = ({"sigma": (3, 1)}, {"factor": (1.2, 1.5)}, {"jpeg_quality": (0, 95)}, {"up_down_keep": (0, 0, 0)})
    for options in wrong:
        with pytest.raises(ValidationError):
            StageOptions(**options)
    wrong = (
        *({"kernel_sizes": (8, 20)}, {"h264_crf": (20, 60)}, {"h264": 1.5}, {"plateau_beta": (2, 1)}),
        *({"shapes": (0, 0, 0)}, {"shapes": (-1, 1, 1)}, {"isotropic": (5, 5, 5)}),
    )
    for options in wrong:
        with pytest.raises(ValidationError):
            DegradationOptions(**options)


@pytest.mark.parametrize("limits", [(2.0, 4.0), (0.2, 0.5), (0.5, 4.0), (1.0, 2.0)])
def test_betas_stay_within_their_limits(limits: tuple[float, float]) -> None:
    options = DegradationOptions(shapes=(0, 1, 0), generalised_beta=limits)
    drawn = [sample_degradation(options, seed).first.blur for seed in range(200)]
    betas = [blur.beta for blur in drawn if blur and blur.shape == "generalised"]
    assert limits[0] <= min(betas) < max(betas) <= limits[1]
