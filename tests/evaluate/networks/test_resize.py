"""Each way of resizing, against the formula of its origin written another way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from timeloom.evaluate.networks.resize import (
    antialiased_bicubic,
    bilinear,
    centre_crop,
    corner_bilinear,
    pillow_bicubic,
    short_side,
    tf1_bilinear,
)

SIZES = ((13, 20), (37, 24), (299, 298))


@pytest.fixture
def images():
    return torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tf1_reads_pixel_i_at_i_times_the_ratio(images, height, width):
    result = tf1_bilinear(images, height, width)
    for y, x in ((0, 0), (height // 3, width // 2), (height - 1, width - 1), (5, width - 2)):
        v, u = y * 24 / height, x * 31 / width
        rows, columns = [int(v), min(int(v) + 1, 23)], [int(u), min(int(u) + 1, 30)]
        shares = torch.outer(torch.tensor([1 - v % 1, v % 1]), torch.tensor([1 - u % 1, u % 1]))
        expected = (images[:, :, rows][:, :, :, columns] * shares).sum(dim=(2, 3))
        torch.testing.assert_close(result[:, :, y, x], expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tf1_is_a_grid_moved_by_half_a_pixel(images, height, width):
    """The formulation of StyleGAN's TorchScript: sample with half pixels, on a grid moved back by them."""
    move = torch.eye(2, 3)[None].repeat(2, 1, 1)
    move[:, 0, 2] += 1 / 31 - 1 / width
    move[:, 1, 2] += 1 / 24 - 1 / height
    grid = F.affine_grid(move, [2, 3, height, width], align_corners=False)
    expected = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(tf1_bilinear(images, height, width), expected, rtol=1e-4, atol=0.02)


def test_the_bilinear_ways_differ(images):
    ways = [way(images, 13, 20) for way in (tf1_bilinear, bilinear, corner_bilinear)]
    assert (ways[0] - ways[1]).abs().max() > 10
    assert (ways[1] - ways[2]).abs().max() > 10
    torch.testing.assert_close(ways[2][:, :, -1, -1], images[:, :, -1, -1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_antialiased_is_pillows(images, height, width):
    result = antialiased_bicubic(images, height, width)
    for image, resized in zip(images.flatten(0, 1), result.flatten(0, 1), strict=True):
        pillow = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(resized, np.asarray(pillow).clip(0, 255), atol=0.02)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_on_bytes_it_is_pillows_too(images, height, width):
    images = images.round()
    result = pillow_bicubic(images, height, width)
    assert torch.equal(result, result.round())
    for image, resized in zip(images, result, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).byte().numpy()).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        difference = np.abs(resized.permute(1, 2, 0).numpy() - np.asarray(pillow))
        assert difference.max() <= 1
        assert difference.mean() < 0.02


def test_squares_of_the_middle():
    assert short_side(64, 100, 224, round_up=True) == (224, 350)
    assert short_side(101, 64, 224, round_up=True) == (354, 224)
    assert short_side(101, 64, 224, round_up=False) == (353, 224)
    assert short_side(64, 64, 224, round_up=True) == (224, 224)
    values = torch.arange(35.0).view(1, 1, 5, 7)
    assert centre_crop(values, 4)[0, 0, 0].tolist() == [1, 2, 3, 4]
