import itertools

import pytest
import torch
import torch.nn.functional as F

from timeloom.errors import TimeloomError
from timeloom.models.swap import SwapAttention, cut_axis, window_attention
from timeloom.models.swap_options import SwapOptions

RANDOM = torch.Generator()


def streams(shape, seed=0, dtype=torch.float64):
    """Query, key and value (B, F, H, W, A, d)."""
    RANDOM.manual_seed(seed)
    return [torch.randn(*shape, generator=RANDOM, dtype=dtype) for _ in range(3)]


def trained(attention, seed=0):
    """The same layer with an output projection that is no longer zero."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(attention.proj_out.weight, std=0.3)
    return attention


def same_window(size, window, shift):
    """Brute force, frame by frame and pixel by pixel: whether two tokens of a clip lie in one window. (FHW, FHW)."""
    frames, rows, columns = (min(side or axis, axis) for side, axis in zip(window, size, strict=True))
    shift = shift if frames < size[0] else 0

    def number(token):
        frame, row, column = token
        return (frame - shift) // frames, row // rows, column // columns

    numbers = [number(token) for token in itertools.product(*map(range, size))]
    return torch.tensor([[one == other for other in numbers] for one in numbers])


SIZES = [
    tuple(int(torch.randint(1, 7, (), generator=RANDOM.manual_seed(10 * case + axis))) for axis in range(6))
    for case in range(12)
]
"""Random (frames, height, width, and a window of that), some windows larger than their axis."""


@pytest.mark.parametrize("numbers", [*SIZES, (5, 4, 3, 2, 2, 2), (8, 3, 5, 4, 0, 2), (4, 2, 3, 0, 0, 0)])
@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_windows_are_global_attention_under_a_mask(numbers, shifted):
    size, window = numbers[:3], numbers[3:]
    shift = window[0] // 2 if shifted else 0
    query, key, value = streams((2, *size, 2, 4))
    found = window_attention(query, key, value, window, shift)
    whole = [each.flatten(1, 3).transpose(1, 2) for each in (query, key, value)]
    expected = F.scaled_dot_product_attention(*whole, attn_mask=same_window(size, window, shift))
    torch.testing.assert_close(found.flatten(1, 3).transpose(1, 2), expected)


@pytest.mark.parametrize(("window", "shift"), [(0, 0), (1, 0), (3, 0), (3, 1), (8, 0), (8, 4)])
def test_every_place_of_an_axis_is_in_one_window(window, shift):
    for size in range(1, 20):
        runs = cut_axis(size, window, shift)
        windows = [(first + i * length, length) for first, length, count in runs for i in range(count)]
        assert [place for first, length in windows for place in range(first, first + length)] == list(range(size))
        assert all(length <= (window or size) for _, length in windows)


@torch.no_grad()
def test_shifted_windows_never_join_the_ends_of_a_clip():
    """Frames 0 … 3 | 4 … 11 | 12 … 15: in a cyclic shift without its mask, frame 15 would meet frame 0."""
    query, key, value = streams((1, 16, 1, 1, 1, 4))
    before = window_attention(query, key, value, (8, 8, 8), shift=4)
    for changed, meets in ((0, range(4)), (5, range(4, 12)), (15, range(12, 16))):
        other = value.clone()
        other[:, changed] += 1
        after = window_attention(query, key, other, (8, 8, 8), shift=4)
        moved = (after - before).abs().amax(dim=(0, 2, 3, 4, 5)) > 0
        assert moved.nonzero().flatten().tolist() == list(meets)


def test_roles_swap_and_swap_back():
    for first, second in (("spatial", "temporal"), ("temporal", "spatial")):
        options = SwapOptions(queries=f"{first}_first")
        assert [options.asks(block) for block in range(4)] == [first, second, first, second]
        assert [SwapOptions(queries=first).asks(block) for block in range(3)] == [first] * 3
    assert SwapOptions(queries="none").asks(0) is None


def clips(channels=8, frames=5, seed=1, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(2 * frames, channels, 3, 5, generator=random, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize("asks", ["spatial", "temporal"])
@pytest.mark.parametrize("feed_forward", [True, False])
@torch.no_grad()
def test_at_first_it_is_plain_addition_to_the_bit(asks, feed_forward):
    layer = SwapAttention(8, 2, asks, window=(2, 2, 2), shifted=True, feed_forward=feed_forward, groups=4)
    x, y = clips()
    assert torch.equal(layer(x, y, 5), x + y)
    assert not torch.allclose(trained(layer)(x, y, 5), x + y, atol=1e-3)


@pytest.mark.parametrize("asks", ["spatial", "temporal"])
@pytest.mark.parametrize("feed_forward", [True, False])
@torch.no_grad()
def test_by_the_formula(asks, feed_forward):
    """Against the equations written out, for windows as large as the clip."""
    channels, heads, frames = 8, 2, 5
    layer = trained(SwapAttention(channels, heads, asks, (0, 0, 0), feed_forward=feed_forward, groups=4)).double()
    x, y = clips(dtype=torch.float64)
    found = layer(x, y, frames)

    def projected(norm, proj, features):
        clip = features.unflatten(0, (2, frames)).transpose(1, 2)  # (B, C, F, H, W)
        groups = clip.reshape(2, 4, -1)
        normed = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        normed = normed.reshape(clip.shape).flatten(2).transpose(1, 2)
        return proj(normed * norm.weight + norm.bias)  # (B, FHW, C)

    x_in = projected(layer.norm_spatial, layer.proj_in_spatial, x)
    y_in = projected(layer.norm_temporal, layer.proj_in_temporal, y)
    query, answer = (x_in, y_in) if asks == "spatial" else (y_in, x_in)
    q = layer.to_q(layer.norm_query(query)).unflatten(-1, (heads, -1))
    k, v = (project(layer.norm_answer(answer)).unflatten(-1, (heads, -1)) for project in (layer.to_k, layer.to_v))
    scores = torch.einsum("bqad,bkad->baqk", q, k) / (channels / heads) ** 0.5
    h = layer.to_out(torch.einsum("baqk,bkad->bqad", scores.softmax(-1), v).flatten(2)) + query
    if feed_forward:
        values, gate = layer.feed_forward.net[0].proj(layer.norm_hidden(h)).chunk(2, dim=-1)
        h = layer.feed_forward.net[2](values * F.gelu(gate)) + h
    change = layer.proj_out(h).transpose(1, 2).unflatten(2, (frames, 3, 5)).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(found, x + y + change)


@torch.no_grad()
def test_the_streams_change_places():
    """With the same weights for both streams, temporal asking is spatial asking with x and y exchanged."""
    spatial = trained(SwapAttention(8, 2, "spatial", (2, 2, 2), groups=4))
    temporal = SwapAttention(8, 2, "temporal", (2, 2, 2), groups=4)
    for layer in (spatial, temporal):
        layer.norm_temporal, layer.proj_in_temporal = layer.norm_spatial, layer.proj_in_spatial
    temporal.load_state_dict(spatial.state_dict())
    x, y = clips()
    torch.testing.assert_close(temporal(y, x, 5), spatial(x, y, 5))


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch_mates():
    layer = trained(SwapAttention(8, 2, window=(2, 2, 2), shifted=True, groups=4))
    x, y = clips()
    torch.testing.assert_close(layer(x, y, 5)[:5], layer(x[:5], y[:5], 5))


@pytest.mark.parametrize(("feed_forward", "squares"), [(True, 19), (False, 7)])
def test_parameters(feed_forward, squares):
    """19 C² with the feed-forward network, 7 C² without, and what grows with C."""
    layer = SwapAttention(64, 4, feed_forward=feed_forward)
    matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim == 2)
    assert matrices == squares * 64**2


def test_every_tensor_gets_a_gradient():
    layer = trained(SwapAttention(8, 2, window=(2, 2, 2), shifted=True, groups=4))
    layer(*clips(), 5).square().mean().backward()
    assert [name for name, parameter in layer.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_heads_that_do_not_divide():
    with pytest.raises(TimeloomError, match="8 channels cannot be split over 3 heads"):
        SwapAttention(8, 3)
