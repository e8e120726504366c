from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloom.data import Clip, Ledger, Window
from timeloom.data.clip import Outline
from timeloom.data.mixture import Mixture
from timeloom.data.order import Interleave, Order, Shuffle, whole_weights

WINDOW = Window(num_frames=4, fps=8, height=32, width=32)
SIZES = [(16, 64), (32, 32), (64, 16)]


class Sketch:
    """A source of clips that nobody draws: (height, width, still) of each."""

    def __init__(self, clips: list[tuple[int, int, bool]]) -> None:
        self.clips = clips
        self.ledger = Ledger(found=len(clips))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        height, width, still = self.clips[index]
        return Clip(str(index), "", "", width, height, 8, 1, lambda window, start: np.zeros(0, np.uint8), still=still)

    def outline(self) -> Outline:
        columns = np.array(self.clips).reshape(-1, 3)
        heights, widths = columns[:, 0].astype(np.int32), columns[:, 1].astype(np.int32)
        return Outline(heights, widths, columns[:, 2].astype(bool), np.arange(len(self)))


def sketch(clips: int) -> Sketch:
    return Sketch([(32, 32, False)] * clips)


shapes = st.sampled_from([(32, 128, False), (30, 31, False), (90, 20, False), (0, 0, False), (32, 32, True)])
sources = st.lists(st.lists(shapes, min_size=1, max_size=12), min_size=1, max_size=3)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7))
def test_every_prefix_holds_each_stream_in_its_share_within_one(weights: list[int]) -> None:
    interleave = Interleave(weights)
    given_ = np.zeros(len(weights), dtype=int)
    for n in range(2 * sum(weights) + 3):
        stream, place = interleave(n)
        assert place == given_[stream]
        given_[stream] += 1
        owed = (n + 1) * np.array(weights) / sum(weights)
        assert np.abs(given_ - owed).max() < 1


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 10**15))
def test_an_item_far_away_is_where_counting_there_would_end(weights: list[int], far: int) -> None:
    cycle, place = divmod(far, sum(weights))
    stream, number = Interleave(weights)(place)
    assert Interleave(weights)(far) == (stream, cycle * weights[stream] + number)


def test_weights_become_whole_numbers() -> None:
    assert whole_weights([Fraction("0.5"), Fraction("2"), Fraction("1.5")]) == [1, 4, 3]


@given(st.integers(1, 40), st.integers(0, 3))
def test_a_shuffle_shows_each_item_once_an_epoch(size: int, seed: int) -> None:
    shuffle = Shuffle([seed], size)
    epochs = [[shuffle(epoch * size + i) for i in range(size)] for epoch in range(3)]
    assert all(sorted(order) == list(range(size)) for order in epochs)
    assert shuffle(size + 1 if size > 1 else 0) == Shuffle([seed], size)(size + 1 if size > 1 else 0)
    if size > 12:
        assert epochs[0] != epochs[1] != epochs[2]


def test_one_source_keeps_the_order_that_runs_of_version_0_1_had() -> None:
    order = Order(sketch(10), WINDOW, seed=3, batch_size=4)
    epochs = [np.random.default_rng([3, epoch]).permutation(10) for epoch in range(2)]
    assert [order(n).index for n in range(20)] == np.concatenate(epochs).tolist()


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["0.5", "1", "2", "2.5"])), min_size=1, max_size=4))
def test_sources_keep_their_shares_and_show_every_clip_once_an_epoch(parts: list[tuple[int, str]]) -> None:
    mixture = Mixture([(sketch(clips), Fraction(weight)) for clips, weight in parts])
    order = Order(mixture, WINDOW, seed=0, batch_size=4)
    firsts = np.cumsum([0, *(clips for clips, _ in parts)])
    total = sum(float(weight) for _, weight in parts)
    indices = np.array([order(n).index for n in range(200)])
    for place, (clips, weight) in enumerate(parts):
        own = (indices >= firsts[place]) & (indices < firsts[place + 1])
        owed = np.arange(1, 201) * float(weight) / total
        assert np.abs(np.cumsum(own) - owed).max() < 1
        shown = indices[own] - firsts[place]
        for epoch in range(len(shown) // clips):
            assert sorted(shown[epoch * clips : (epoch + 1) * clips]) == list(range(clips))


@given(sources, st.integers(1, 5), st.integers(0, 5))
def test_every_batch_is_of_one_bucket_and_every_clip_is_used(
    parts: list[list[tuple[int, int, bool]]], batch_size: int, seed: int
) -> None:
    mixture = Mixture([(Sketch(clips), Fraction(1)) for clips in parts])
    order = Order(mixture, WINDOW, seed, batch_size, SIZES)
    clips = [clip for part in parts for clip in part]
    seen: set[int] = set()
    batches = 8 * len(clips)
    for batch in range(batches):
        samples = [order(batch * batch_size + place) for place in range(batch_size)]
        assert len({sample.window for sample in samples}) == 1
        assert all((sample.window.num_frames == 1) == clips[sample.index][2] for sample in samples)
        seen |= {sample.index for sample in samples}
    assert seen == set(range(len(clips)))
    again = Order(mixture, WINDOW, seed, batch_size, SIZES)
    assert [again(n) for n in (batches, 7, 0)] == [order(n) for n in (batches, 7, 0)]


def test_clips_of_all_shapes_come_equally_often() -> None:
    clips = [(32, 128, False)] * 21 + [(32, 32, False)] * 8 + [(90, 20, False)] * 11
    order = Order(Sketch(clips), WINDOW, 0, batch_size=8, sizes=SIZES)
    counts = np.bincount([order(n).index for n in range(40 * 100)], minlength=40)
    assert counts.min() >= 99 and counts.max() <= 101


def test_clips_go_to_the_nearest_shape_and_unknown_ones_to_the_windows() -> None:
    clips = [(50, 200, False), (40, 41, False), (100, 30, False), (0, 0, False)]
    order = Order(Sketch(clips), WINDOW, 0, 1, SIZES)
    windows = {sample.index: (sample.window.height, sample.window.width) for sample in map(order, range(16))}
    assert windows == {0: (16, 64), 1: (32, 32), 2: (64, 16), 3: (32, 32)}
    assert len(order.describe()) == 3


def test_a_bucket_smaller_than_a_batch_joins_the_nearest_and_it_is_said() -> None:
    order = Order(Sketch([(50, 200, False)] * 3 + [(40, 40, False)] * 9), WINDOW, 0, 4, SIZES)
    assert {order(n).window.height for n in range(24)} == {32}
    assert sorted(order(n).index for n in range(12)) == list(range(12))
    assert "fewer clips than a batch; they join 32 x 32" in order.describe()[-1]


def test_pictures_are_single_frames_in_batches_of_their_own() -> None:
    mixture = Mixture([(sketch(9), Fraction(3)), (Sketch([(32, 32, True)] * 9), Fraction(1))])
    order = Order(mixture, WINDOW, 0, batch_size=4)
    frames = [order(n).window.num_frames for n in range(64)]
    assert frames.count(1) == 16 and frames.count(4) == 48
    alone = Order(Sketch([(32, 32, True)] * 3), Window(1, 8, 32, 32), 0)
    assert {alone(n).window.num_frames for n in range(9)} == {1}


def test_substitutes_are_of_the_same_source_and_bucket_and_always_the_same() -> None:
    clips = [(50, 200, False), (40, 40, False)] * 10
    order = Order(Mixture([(Sketch(clips), Fraction(1)), (Sketch(clips), Fraction(1))]), WINDOW, 0, 4, SIZES)
    for number in (0, 5, 19):
        sample = order(number)
        candidates = list(order.candidates(sample, 6))
        assert candidates[0] == sample.index and candidates == list(order.candidates(sample, 6))
        assert all(c % 2 == sample.index % 2 and c // 20 == sample.index // 20 for c in candidates)
        assert len(set(candidates)) > 2


def test_weights_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Interleave([1, 0])
