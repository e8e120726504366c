import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloom.models.shift import ShiftMechanism, temporal_shift


def shift_by_loops(features_NCHW, num_frames, fraction):
    """Latent-Shift's formula, Z'_i = [Z1_{i-1}, Z2_i, Z3_{i+1}], one channel of one frame at a time."""
    frames, channels = features_NCHW.shape[:2]
    group = int(channels * fraction)
    result = torch.zeros_like(features_NCHW)
    for n in range(frames):
        clip, i = divmod(n, num_frames)
        for c in range(channels):
            source = i - 1 if c < group else i + 1 if c >= channels - group else i
            if 0 <= source < num_frames:
                result[n, c] = features_NCHW[clip * num_frames + source, c]
    return result


def features(clips, frames, channels, height=2, width=3, dtype=torch.float32):
    """Values that are all different and none of them zero."""
    count = clips * frames * channels * height * width
    return torch.arange(1, count + 1, dtype=dtype).reshape(clips * frames, channels, height, width)


sizes = st.integers(1, 5)


@settings(deadline=None, max_examples=60)
@given(clips=sizes, frames=sizes, channels=st.integers(1, 9), height=sizes, width=sizes, fraction=st.floats(0, 0.5))
def test_equals_the_formula(clips, frames, channels, height, width, fraction):
    x = features(clips, frames, channels, height, width)
    assert torch.equal(temporal_shift(x, frames, fraction), shift_by_loops(x, frames, fraction))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_dtype_and_memory_format(dtype, memory_format):
    x = torch.randn(6, 8, 3, 2).to(dtype).contiguous(memory_format=memory_format)
    shifted = temporal_shift(x, 3)
    assert shifted.dtype == dtype
    assert torch.equal(shifted, shift_by_loops(x, 3, 0.25))


def test_zeros_beyond_both_ends_never_the_other_end():
    x = features(2, 4, 8)
    clips = temporal_shift(x, 4).unflatten(0, (2, 4))
    assert not clips[:, 0, :2].any()
    assert not clips[:, -1, 6:].any()
    assert clips[:, 1:, :2].all() and clips[:, :-1, 6:].all()


def test_one_frame_keeps_only_its_middle_group():
    x = features(3, 1, 8)
    shifted = temporal_shift(x, 1)
    assert not shifted[:, :2].any() and not shifted[:, 6:].any()
    assert torch.equal(shifted[:, 2:6], x[:, 2:6])


def test_each_group_moves_whole():
    """Each clip loses one frame of each shifted group, and nothing else is lost or doubled."""
    clips = features(2, 5, 8).unflatten(0, (2, 5))
    shifted = temporal_shift(clips.flatten(0, 1), 5).unflatten(0, (2, 5))
    assert torch.equal(shifted[:, :, :2].sum(1), clips[:, :-1, :2].sum(1))
    assert torch.equal(shifted[:, :, 2:6].sum(1), clips[:, :, 2:6].sum(1))
    assert torch.equal(shifted[:, :, 6:].sum(1), clips[:, 1:, 6:].sum(1))


@pytest.mark.parametrize(("channels", "fraction"), [(8, 0.0), (3, 0.25), (8, 0.1)])
def test_nothing_shifted_is_the_input_itself(channels, fraction):
    x = features(1, 4, channels)
    assert temporal_shift(x, 4, fraction) is x


def test_half_leaves_no_middle():
    x = features(1, 3, 4)
    assert torch.equal(temporal_shift(x, 3, 0.5), shift_by_loops(x, 3, 0.5))


def test_the_input_is_not_touched():
    x = features(1, 4, 8)
    before = x.clone()
    temporal_shift(x, 4).add_(1)
    assert torch.equal(x, before)


@pytest.mark.parametrize("frames", [1, 3])
def test_gradients(frames):
    x = torch.randn(2 * frames, 4, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: temporal_shift(x, frames), x)


@pytest.mark.parametrize("num_frames", [0, -1, 4])
def test_not_a_whole_number_of_clips(num_frames):
    with pytest.raises(ValueError, match=f"6 frames are not a whole number of clips of {num_frames}"):
        temporal_shift(features(2, 3, 4), num_frames)


@pytest.mark.parametrize("fraction", [-0.1, 0.51, float("nan")])
def test_fractions_out_of_range(fraction):
    with pytest.raises(ValueError, match=r"must lie in \[0, 0\.5\]"):
        temporal_shift(features(2, 3, 4), 3, fraction)


@pytest.mark.parametrize("placement", ["residual_start", "residual_end"])
def test_the_mechanism_shifts_at_its_placement_alone(placement):
    x = features(1, 4, 8)
    mechanism = ShiftMechanism(0.125, placement)
    for point in ("residual_start", "residual_end"):
        expected = temporal_shift(x, 4, 0.125) if point == placement else x
        assert torch.equal(mechanism.in_residual(x, 4, point), expected)
    assert not list(mechanism.parameters())
