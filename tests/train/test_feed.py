from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from timeloom.data import Clip, DigitsSource, Frames, Ledger, Window
from timeloom.data.clip import Outline
from timeloom.data.mixture import Mixture
from timeloom.data.order import Order
from timeloom.errors import TimeloomError
from timeloom.train.feed import Feed, read_batch
from timeloom.train.task import Batch

WINDOW = Window(num_frames=2, fps=8, height=8, width=8)


class Numbers:
    """Clips whose pixels are their number; those of `broken` cannot be read."""

    def __init__(self, clips: int, broken: frozenset[int] = frozenset(), still: bool = False, first: int = 0) -> None:
        self.clips, self.broken, self.still, self.first = clips, broken, still, first
        self.ledger = Ledger(found=clips)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Clip:
        def draw(window: Window, start: float) -> Frames:
            if index in self.broken:
                raise TimeloomError(f"{index}.mp4: is damaged.")
            shape = (window.num_frames, window.height, window.width, 3)
            return np.full(shape, self.first + index, np.uint8)

        return Clip(f"clip {index}", f"number {self.first + index}", "", 8, 8, 8, 1, draw, still=self.still)

    def outline(self) -> Outline:
        sides = np.full(self.clips, 8, np.int32)
        return Outline(sides, sides, np.full(self.clips, self.still), np.arange(self.clips))


def frames_of(batch: Batch) -> np.ndarray:
    return np.stack([example.frames.numpy() for example in batch.examples])


def batches(total: int, size: int, first: int = 0) -> list[list[int]]:
    return [list(range(start, start + size)) for start in range(first, total, size)]


def captions(feed: Feed, total: int, size: int, first: int = 0) -> list[list[str]]:
    return [batch.captions for _, batch in feed(iter(batches(total, size, first)))]


@pytest.mark.parametrize("workers", [0, 3])
def test_each_clip_comes_once_an_epoch_with_its_own_caption(workers: int) -> None:
    feed = Feed(Order(Numbers(10), WINDOW, 0, 4), workers)
    seen: list[int] = []
    for numbers, batch in feed(iter(batches(20, 4))):
        assert frames_of(batch).shape == (4, 2, 8, 8, 3) and len(numbers) == 4
        values = frames_of(batch)[:, 0, 0, 0, 0].tolist()
        assert batch.captions == [f"number {value}" for value in values]
        seen += values
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert feed.ledger.summary() == "20 found, 20 used, 0 dropped"


def test_a_broken_clip_is_replaced_by_the_same_one_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    source = Numbers(40, broken=frozenset({3, 7, 20}))
    runs = [Feed(Order(source, WINDOW, 0, 4), workers) for workers in (0, 2)]
    first, second = (captions(feed, 80, 4) for feed in runs)
    assert first == second
    resumed = captions(Feed(Order(source, WINDOW, 0, 4), 2), 80, 4, first=24)
    assert resumed == first[6:]
    assert not {"number 3", "number 7", "number 20"} & {caption for batch in first for caption in batch}
    assert runs[0].ledger.used == 80 and runs[0].ledger.reasons["broken when read"] >= 6
    assert ("clip 3", "broken when read") in runs[0].ledger.dropped
    assert "clip 3 is replaced by another clip: 3.mp4: is damaged." in capsys.readouterr().err


def test_half_a_batch_is_that_half_of_the_batch() -> None:
    order = Order(Numbers(40, broken=frozenset({3, 7})), WINDOW, 0, 8)
    whole = Feed(order, 0).batch(list(range(16, 24)))
    halves = [Feed(order, 0).batch(list(range(first, first + 4))) for first in (16, 20)]
    assert np.array_equal(frames_of(whole), np.concatenate([frames_of(half) for half in halves]))


def test_too_much_that_is_broken_stops_training() -> None:
    source = Numbers(40, broken=frozenset(range(15)))
    with pytest.raises(TimeloomError, match=r"clips read are broken, more than 20%.*--allow-drop"):
        captions(Feed(Order(source, WINDOW, 0, 4), 2), 400, 4)
    captions(Feed(Order(source, WINDOW, 0, 4), 2, allow_broken=True), 400, 4)


def test_when_nothing_can_be_read_it_says_so() -> None:
    feed = Feed(Order(Numbers(40, broken=frozenset(range(40))), WINDOW, 0, 4), 0, allow_broken=True)
    with pytest.raises(TimeloomError, match=r"9 clips in a row cannot be read.*is damaged"):
        feed.batch([0, 1])


def test_clips_and_pictures_take_turns_by_weight() -> None:
    mixture = Mixture([(Numbers(8), Fraction(3)), (Numbers(8, still=True, first=100), Fraction(1))])
    feed = Feed(Order(mixture, WINDOW, 0, 4), 2)
    shapes = []
    for _, batch in feed(iter(batches(64, 4))):
        shapes.append(frames_of(batch).shape[:2])
        assert all((int(caption.split()[1]) >= 100) == (frames_of(batch).shape[1] == 1) for caption in batch.captions)
    assert shapes.count((4, 1)) == 4 and shapes.count((4, 2)) == 12


def test_digits_are_drawn_together() -> None:
    source = DigitsSource("train", seed=1, num_clips=50)
    window = Window(2, 8, 16, 16)
    batch = Feed(Order(source, window, 1, 4), 0).batch([0, 1])
    assert isinstance(batch, Batch) and frames_of(batch).shape == (2, 2, 16, 16, 3)
    order = np.random.default_rng([1, 0]).permutation(50)
    assert batch.captions == [source[int(index)].caption for index in order[:2]]


def test_a_held_out_clip_that_is_broken_gives_way_to_the_next() -> None:
    batch = read_batch(Numbers(4, broken=frozenset({1, 3})), [0, 1, 2, 3], WINDOW, [0.5] * 4)
    assert batch.captions == ["number 0", "number 2", "number 2", "number 0"]


def test_the_first_thing_printed_is_what_was_found(
    tiny_recipe: Callable, trained_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from timeloom.train.engine import Trainer
    from timeloom.train.tasks import build_task

    recipe = tiny_recipe("image", trained_runs, tmp_path)
    task = build_task(recipe, torch.device("cpu"))
    capsys.readouterr()
    Trainer(recipe, task, torch.device("cpu"))
    assert capsys.readouterr().out.startswith(
        "digits: 1000000 found, 1000000 used, 0 dropped\nclips: 1,000,000 to train"
    )
