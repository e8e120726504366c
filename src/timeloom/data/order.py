"""Which clip is training sample number n, and at what size: a function of (seed, n, batch size) and nothing else.

Sources are mixed by weight and sizes by their share of the clips, both without chance: after any n samples a source has
given its share of n, give or take less than one. Every batch is of one bucket, that is one number of frames and one
size. Within its bucket each clip of a source comes once an epoch, each epoch in its own order. Nothing is left out to
fill a batch: a bucket's last clips of an epoch share their batch with the first of the next.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from timeloom.data.buckets import nearest_sizes
from timeloom.data.clip import ClipSource, Window
from timeloom.data.mixture import parts_of
from timeloom.data.movie import Size

SUBSTITUTE_SALT = 1
SHARE_UNITS = 10_000
"""Within one of several buckets, shares of sources are rounded to this."""


def whole_weights(weights: Sequence[Fraction]) -> list[int]:
    """The smallest whole numbers in the same proportion."""
    common = lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * common) for weight in weights]
    return [weight // gcd(*whole) for weight in whole]


class Interleave:
    """Streams merged by weight: after any n items a stream of share p has given n·p, off by less than one.

    R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980): among the streams that may give the
    n-th item without coming too early, the one that would soonest be too late. The pattern repeats after sum(weights).
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or min(weights) < 1:
            raise ValueError(f"weights must be whole and at least 1, not {list(weights)}")
        self.weights = list(weights)
        self.period = sum(weights)
        self._streams, self._places = array("H"), array("q")
        self._given = [0] * len(weights)

    def __call__(self, n: int) -> tuple[int, int]:
        """(stream, which of its items) of item `n`, both counted from 0."""
        cycle, place = divmod(n, self.period)
        if len(self.weights) == 1:
            return 0, n
        while len(self._streams) <= place:
            self._extend()
        stream = self._streams[place]
        return stream, cycle * self.weights[stream] + self._places[place]

    def _extend(self) -> None:
        n, slack = len(self._streams) + 1, 2 * len(self.weights) - 2
        best, best_deadline = -1, (0, 1)
        for stream, weight in enumerate(self.weights):
            owed = n * weight - self._given[stream] * self.period  # in items, times the period
            if slack * owed < self.period:
                continue
            deadline = ((slack - 1) * self.period - slack * owed, weight)  # items from now until too late, scaled
            if best < 0 or deadline[0] * best_deadline[1] < best_deadline[0] * deadline[1]:
                best, best_deadline = stream, deadline
        self._streams.append(best)
        self._places.append(self._given[best])
        self._given[best] += 1


class Shuffle:
    """Each of `size` items once an epoch, every epoch in its own order."""

    def __init__(self, seed: Sequence[int], size: int) -> None:
        self.seed, self.size = list(seed), size
        self._epoch, self._order = -1, np.empty(0, dtype=np.uint32)

    def __call__(self, n: int) -> int:
        """The n-th item that is shown."""
        epoch, place = divmod(n, self.size)
        if epoch != self._epoch:
            order = np.arange(self.size, dtype=np.uint32)
            np.random.default_rng([*self.seed[:1], epoch, *self.seed[1:]]).shuffle(order)
            self._epoch, self._order = epoch, order
        return int(self._order[place])


@dataclass(frozen=True)
class Sample:
    """A training sample: which clip of the source, and what of it is drawn."""

    number: int
    index: int
    window: Window
    epoch: int = 0
    """How often its clip has come before."""


_Stream = tuple[int, NDArray[np.uint32] | None, int]
"""Clips of one source in one bucket: the source's first clip, which of its clips (None for all), how many."""


def _holds(stream: _Stream, sample: Sample) -> bool:
    """Whether the sample's clip is of the stream's source, given that it is of its bucket."""
    first, members, size = stream
    return first <= sample.index <= first + int(size - 1 if members is None else members[-1])


@dataclass
class _Bucket:
    """Clips that are drawn alike."""

    window: Window
    streams: list[_Stream]
    shuffles: list[Shuffle]
    mix: Interleave


class Order:
    """The order of training samples.

    Args:
        source: the training clips, a `Mixture` for several sources.
        window: what is drawn of a clip. Pictures are drawn as one frame and make batches of their own.
        seed: of the order within epochs.
        batch_size: samples of a batch, over all processes; batches begin at its multiples.
        sizes: (height, width) of the buckets; the window's own without them.
    """

    def __init__(
        self, source: ClipSource, window: Window, seed: int, batch_size: int = 1, sizes: Sequence[Size] = ()
    ) -> None:
        self.source, self.seed, self.batch_size = source, seed, batch_size
        parts = parts_of(source)
        self._firsts = [0, *accumulate(len(part) for part, _ in parts)][:-1]
        shares = [weight for _, weight in parts]
        places = [_assign(part, window, sizes) for part, _ in parts]
        self.windows = [
            replace(window, num_frames=num_frames, height=height, width=width)
            for num_frames in ((window.num_frames, 1) if window.num_frames > 1 else (1,))
            for height, width in sizes or [(window.height, window.width)]
        ]
        counts = np.stack([np.bincount(own, minlength=len(self.windows)) for own in places])  # (parts, buckets)
        self.moved = _join_small(counts, self.windows, batch_size)
        for own in places:
            own[:] = self.moved[own]
        counts = np.stack([np.bincount(own, minlength=len(self.windows)) for own in places])
        self._buckets, weights = [], []
        for place in np.flatnonzero(counts.sum(axis=0)):
            bucket_shares = [
                share * Fraction(int(own[place]), int(own.sum())) for share, own in zip(shares, counts, strict=True)
            ]
            weights.append(sum(bucket_shares, Fraction(0)))
            self._buckets.append(self._bucket(int(place), parts, places, bucket_shares, counts))
        self._batches = Interleave(whole_weights(weights))

    def _bucket(
        self,
        place: int,
        parts: Sequence[tuple[ClipSource, Fraction]],
        places: Sequence[NDArray[np.uint16]],
        shares: Sequence[Fraction],
        counts: NDArray[np.int64],
    ) -> _Bucket:
        streams, shuffles, own_shares, first = [], [], [], 0
        for number, ((part, _), own, share) in enumerate(zip(parts, places, shares, strict=True)):
            size = int(counts[number, place])
            if size:
                members = None if size == len(part) else np.flatnonzero(own == place).astype(np.uint32)
                streams.append((first, members, size))
                salt = [] if len(parts) == 1 and members is None else [number, place]
                shuffles.append(Shuffle([self.seed, *salt], size))
                own_shares.append(share)
            first += len(part)
        total = sum(own_shares, Fraction(0))
        if (counts.sum(axis=0) > 0).sum() == 1:
            weights = whole_weights(own_shares)
        else:
            weights = [max(1, round(SHARE_UNITS * share / total)) for share in own_shares]
        return _Bucket(self.windows[place], streams, shuffles, Interleave(weights))

    def __call__(self, number: int) -> Sample:
        """Training sample `number`."""
        batch, place = divmod(number, self.batch_size)
        which, earlier = self._batches(batch)
        bucket = self._buckets[which]
        stream, item = bucket.mix(earlier * self.batch_size + place)
        first, members, _ = bucket.streams[stream]
        chosen = bucket.shuffles[stream](item)
        index = first + int(chosen if members is None else members[chosen])
        return Sample(number, index, bucket.window, epoch=item // bucket.shuffles[stream].size)

    def shares(self, numbers: Sequence[int]) -> list[float]:
        """Of these samples, the share that each source gives."""
        own = [bisect_right(self._firsts, self(number).index) - 1 for number in numbers]
        return [own.count(place) / len(own) for place in range(len(self._firsts))]

    def clips(self) -> Iterator[tuple[int, Window]]:
        """Every clip once, with what is drawn of it."""
        for bucket in self._buckets:
            for first, members, size in bucket.streams:
                for place in range(size):
                    yield first + int(place if members is None else members[place]), bucket.window

    def candidates(self, sample: Sample, substitutes: int) -> Iterator[int]:
        """The sample's clip, then others of its source and bucket, by chance of (seed, number), should it be broken."""
        yield sample.index
        rng = np.random.default_rng([self.seed, sample.number, SUBSTITUTE_SALT])
        first, members, size = next(stream for stream in self._streams_of(sample.window) if _holds(stream, sample))
        for chosen in rng.integers(size, size=substitutes).tolist():
            yield first + int(chosen if members is None else members[chosen])

    def _streams_of(self, window: Window) -> Iterator[_Stream]:
        return (stream for bucket in self._buckets if bucket.window == window for stream in bucket.streams)

    def describe(self) -> list[str]:
        """Lines that say how many clips each bucket has, where there are several, and which were joined."""
        sizes = {id(bucket): sum(size for _, _, size in bucket.streams) for bucket in self._buckets}
        lines = [
            f"bucket {bucket.window.num_frames} x {bucket.window.height} x {bucket.window.width}: "
            f"{sizes[id(bucket)]:,} clips" + (", fewer than a batch" if sizes[id(bucket)] < self.batch_size else "")
            for bucket in self._buckets
        ]
        for place, target in enumerate(self.moved):
            if place != target:
                small, large = self.windows[place], self.windows[int(target)]
                lines.append(
                    f"bucket {small.num_frames} x {small.height} x {small.width} has fewer clips than a batch; "
                    f"they join {large.height} x {large.width}"
                )
        return lines if len(lines) > 1 else []


def _assign(part: ClipSource, window: Window, sizes: Sequence[Size]) -> NDArray[np.uint16]:
    """The bucket of each clip: the size of nearest shape; pictures after all the others, where clips have frames."""
    outline = part.outline()
    sizes = sizes or [(window.height, window.width)]
    places = nearest_sizes(outline.heights, outline.widths, sizes, (window.height, window.width))
    if window.num_frames > 1:
        places[outline.stills] += len(sizes)
    return places


def _join_small(counts: NDArray[np.int64], windows: Sequence[Window], batch_size: int) -> NDArray[np.int64]:
    """Which bucket each becomes: one with fewer clips than a batch would repeat them within it, so it joins the one of
    nearest shape that has enough, else the largest, among those of its number of frames. Empty ones stay."""
    total = counts.sum(axis=0)
    target = np.arange(len(windows))
    shapes = np.log([window.height / window.width for window in windows])
    for place in np.flatnonzero((total > 0) & (total < batch_size)):
        alike = np.array([window.num_frames == windows[int(place)].num_frames for window in windows])
        enough = np.flatnonzero(alike & (total >= batch_size))
        if len(enough):
            target[place] = enough[np.abs(shapes[enough] - shapes[place]).argmin()]
        else:
            target[place] = np.where(alike, total, -1).argmax()
    return target
