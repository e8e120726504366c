import numpy as np
import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate.metrics import FeatureSet, find_metric
from timeloom.evaluate.metrics.fidelity import flicker, luma, psnr, ssim


def noise(shape, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def test_y_is_studio_range_bt601():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert luma(colours) == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_psnr_is_of_y_without_the_border():
    wanted = np.full((2, 20, 24, 3), 100, np.uint8)
    made = wanted.copy()
    made[:, 4:-4, 4:-4] += 10  # 10 gray levels are 10 · 219 / 255 levels of Y
    made[:, :4] = 0
    assert psnr(made, wanted, 4) == pytest.approx([20 * np.log10(255 / (10 * 219 / 255))] * 2)
    assert np.isinf(psnr(wanted, wanted, 4)).all()
    assert (psnr(made, wanted, 0) < psnr(made, wanted, 4)).all()


def test_ssim_is_its_definition_window_by_window():
    a, b = noise((2, 24, 30, 3)), noise((2, 24, 30, 3), seed=1)
    b = ((a.astype(int) * 3 + b) // 4).astype(np.uint8)
    places = np.arange(11) - 5
    window = np.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    x, y = luma(a)[1], luma(b)[1]
    for top in range(24 - 10):
        for left in range(30 - 10):
            p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            c = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * mp * mq + c1) * (2 * c + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b, 0)[1] == pytest.approx(np.mean(values))
    assert ssim(a, a, 3) == pytest.approx([1, 1])


def test_flicker_is_seen_where_nothing_moves_alone():
    small = np.full((4, 16, 16, 3), 80, np.uint8)
    small[1:, :, 12:] = 200  # something comes in at the right, after the first frame
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    still = flicker(large, small)
    assert (still.value, still.own) == (0, 0) and 0.75 < still.still < 1
    large[1::2, :, :20] += 3
    trembling = flicker(large, small)
    assert trembling.own == 0 and trembling.ratio == float("inf")
    assert trembling.value == pytest.approx(3 * 219 / 255 * 20 / 64, rel=0.2)
    noisy = small + noise(small.shape, 0, 9)
    bigger = flicker(noisy.repeat(4, axis=1).repeat(4, axis=2), noisy)
    assert bigger.value == pytest.approx(bigger.own) and bigger.ratio == pytest.approx(1)
    moving = flicker(large, noise(small.shape)[:, :1, :1].repeat(16, 1).repeat(16, 2))
    assert np.isnan(moving.value) and moving.still == 0


def test_what_cannot_be_compared_is_refused():
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(TimeloomError, match="cannot be compared"):
        psnr(frames, frames[:, :8], 0)
    with pytest.raises(TimeloomError, match="too small"):
        ssim(frames, frames, 4)
    with pytest.raises(TimeloomError, match="only one"):
        flicker(frames[:1], frames[:1])
    with pytest.raises(TimeloomError, match="do not come from"):
        flicker(frames, np.zeros((2, 5, 16, 3), np.uint8))


@pytest.mark.parametrize(("name", "better"), [("psnr", "higher"), ("ssim", "higher"), ("flicker", "lower")])
def test_a_metric_is_the_mean_with_an_interval(name, better):
    values = np.random.default_rng(0).normal(30, 2, (200, 1))
    result = find_metric(name).measure(FeatureSet.of(values))
    assert result.value == pytest.approx(values.mean()) and result.better == better and result.count == 200
    low, high = result.interval
    assert high - low == pytest.approx(2 * 1.96 * 2 / 200**0.5, rel=0.2)
    assert find_metric(name).measure(FeatureSet.of(values[:5])).interval is None
    with pytest.raises(TimeloomError, match="one number a video"):
        find_metric(name).measure(FeatureSet.of(np.zeros((3, 2))))
