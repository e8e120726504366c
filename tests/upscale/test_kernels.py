import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import j1
from scipy.stats import multivariate_normal

from timeloom.upscale.kernels import SHAPES, blur_kernel, sinc_kernel

SIGMA = st.floats(0.2, 3.0)
ANGLE = st.floats(-3.1, 3.1, allow_subnormal=False)  # training flushes them to zero in this process


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from([7, 13, 21]), SIGMA, SIGMA, ANGLE, st.floats(0.5, 4))
def test_a_kernel_sums_to_one_and_is_the_same_turned_by_half(shape, size, first, second, angle, beta) -> None:
    kernel = blur_kernel(shape, size, (first, second), angle, beta)
    assert kernel.shape == (size, size)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_sigmas_are_the_same_in_all_directions(shape) -> None:
    kernel = blur_kernel(shape, 11, (1.5, 1.5), 0.7, 1.3)
    np.testing.assert_allclose(kernel, np.rot90(kernel), atol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)


def test_the_gaussian_is_the_density_with_this_covariance() -> None:
    sigmas, angle = (2.0, 0.8), 0.5
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = turn @ np.diag(np.square(sigmas)) @ turn.T
    y, x = np.mgrid[-7:8, -7:8]
    density = multivariate_normal(cov=covariance).pdf(np.stack([x, y], axis=-1))
    np.testing.assert_allclose(blur_kernel("gaussian", 15, sigmas, angle), density / density.sum(), atol=1e-12)
    np.testing.assert_allclose(
        blur_kernel("generalised", 15, sigmas, angle, 1.0), blur_kernel("gaussian", 15, sigmas, angle), atol=1e-12
    )
    plateau = blur_kernel("plateau", 15, (1.0, 1.0), 0.0, 2.0)
    assert plateau[7, 7] / plateau[7, 9] == pytest.approx(1 + 2.0**4)  # 1 / (1 + (r²)^2) at r = 2


def test_the_sinc_is_the_ideal_low_pass_filter() -> None:
    kernel = sinc_kernel(21, 1.2)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, np.rot90(kernel), atol=1e-12)
    assert kernel[10, 13] / kernel[10, 10] == pytest.approx(2 * j1(3.6) / 3.6)
    spectrum = np.abs(np.fft.fft2(sinc_kernel(21, 1.5), (256, 256)))[0]
    frequencies = np.arange(128) * 2 * np.pi / 256
    assert (np.abs(spectrum[:128][frequencies < 1.2] - 1) < 0.3).all()
    assert (spectrum[:128][frequencies > 1.9] < 0.2).all()


def test_even_sizes_have_no_middle() -> None:
    with pytest.raises(ValueError, match="odd"):
        sinc_kernel(8, 1.0)
