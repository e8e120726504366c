import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloom.data.buckets import WIDEST, budget_sizes, nearest_sizes


@given(st.integers(32 * 32, 1024 * 1024))
def test_a_budget_gives_sizes_of_about_its_pixels(pixels: int) -> None:
    sizes = budget_sizes(pixels)
    assert len(set(sizes)) == len(sizes) > 0
    assert {(width, height) for height, width in sizes} == set(sizes)
    for height, width in sizes:
        assert height % 8 == width % 8 == 0
        assert max(height, width) <= WIDEST * min(height, width)
        assert 0.6 * pixels < height * width < 1.5 * pixels


def test_the_papers_size_is_among_its_buckets() -> None:
    assert budget_sizes(256 * 256) == [(192, 352), (224, 288), (256, 256), (288, 224), (352, 192)]


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1), st.integers(64, 512))
def test_the_nearest_shape_is_taken(clips: list[tuple[int, int]], side: int) -> None:
    sizes = budget_sizes(side * side)
    heights, widths = np.array(clips, dtype=np.int32).T
    places = nearest_sizes(heights, widths, sizes, sizes[0])
    shapes = np.log([height / width for height, width in sizes])
    distances = np.abs(shapes[None] - np.log(heights / widths)[:, None])
    assert distances[np.arange(len(clips)), places] == pytest.approx(distances.min(axis=1), abs=1e-6)
