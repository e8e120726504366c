"""Features of videos, read as they are needed: what every metric consumes.

Axes: N videos, F frames, D features. A network that sees whole videos gives (D,) for each, one that sees frames (F, D).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timeloom.errors import TimeloomError

Array: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int64]

CHUNK = 128
"""Videos in memory at once: 16 frames of 2048 features each are 34 MB in float64."""
NAMED = 5
"""Of the videos that an error is about, this many are named; all are counted."""


class FeatureSet:
    """Features of N videos, of which a chunk is in memory at a time.

    Args:
        keys: a name for each video, no two alike. Names decide who is drawn where something is drawn, so that neither
            the order of the videos nor their spread over processes changes a result.
        read: gives the features at some places, (n, D) or (n, F, D), any dtype; the same however often it is asked.
        missing: {key: why} of videos that belong to the set and have no features; results count them.
        label: what errors call the set.

    Raises:
        TimeloomError: two videos have one name.
    """

    def __init__(
        self,
        keys: Sequence[str],
        read: Callable[[Places], ArrayLike],
        missing: Mapping[str, str] | None = None,
        label: str = "features",
    ) -> None:
        self.keys, self.missing, self.label = list(keys), dict(missing or {}), label
        self._read = read
        self._shape: tuple[int, ...] | None = None
        if len(set(self.keys)) < len(self.keys):
            twice = [key for key, times in Counter(self.keys).items() if times > 1]
            raise TimeloomError(f"{label}: {len(twice)} names stand for more than one video: {listed(twice)}.")

    @classmethod
    def of(cls, features: FeatureSet | ArrayLike, label: str = "features") -> FeatureSet:
        """An array (N, D) or (N, F, D) as a set, its videos named "0", "1", ...; a set as it is."""
        if isinstance(features, FeatureSet):
            return features
        array = np.asarray(features)
        if array.ndim not in (2, 3):
            raise TimeloomError(f"{label}: features are (N, D) or (N, F, D), not {array.shape}.")
        return cls([str(place) for place in range(len(array))], lambda places: array[places], label=label)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimensions(self) -> int:
        """D."""
        if self._shape is None:
            self.take(np.arange(1))
        assert self._shape is not None
        return self._shape[-1]

    def take(self, places: Places) -> Array:
        """The features at some places, float64 (n, D) or (n, F, D).

        Raises:
            TimeloomError: the features of these videos have another shape than others of the set.
        """
        features = np.asarray(self._read(places), dtype=np.float64)
        shape = features.shape[1:]
        if self._shape is None:
            self._shape = shape
        if len(features) != len(places) or len(shape) not in (1, 2) or 0 in shape or shape != self._shape:
            names = listed([self.keys[place] for place in places])
            raise TimeloomError(
                f"{self.label}: {len(places)} videos give features of shape {features.shape} where "
                f"{(len(places), *self._shape)} was expected: {names}."
            )
        return features

    def chunks(self, places: Places | None = None, size: int = CHUNK) -> Iterator[tuple[Places, Array]]:
        """(places, their features) of the chosen videos, by default of all."""
        chosen = np.arange(len(self)) if places is None else places
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield part, self.take(part)

    def check(self, least: int, what: str) -> None:
        """Read every video once, before anything is averaged.

        Args:
            least: videos that there must be.
            what: needs them.

        Raises:
            TimeloomError: fewer videos, or features that are not finite: how many, and whose.
        """
        if len(self) < least:
            gone = f" ({len(self.missing)} more have no features)" if self.missing else ""
            raise TimeloomError(f"{self.label}: {what} needs at least {least} videos, not {len(self)}{gone}.")
        bad: list[str] = []
        for places, features in self.chunks():
            finite = np.isfinite(features).reshape(len(places), -1).all(axis=1)
            bad += [self.keys[place] for place in places[~finite]]
        if bad:
            raise TimeloomError(
                f"{self.label}: {len(bad)} of {len(self)} videos have features that are not finite: {listed(bad)}."
            )

    def order(self, seed: int) -> Places:
        """All places in an order that looks random and depends on the seed and the names alone."""
        return np.array(sorted(range(len(self)), key=lambda place: _digest(seed, self.keys[place])), dtype=np.int64)

    def poisson(self, places: Places, count: int, seed: int) -> Array:
        """(count, n): how often each of `count` resamples has each video, Poisson of mean 1, by seed and name."""
        draws = [_generator(seed, self.keys[place]).poisson(1.0, count) for place in places]
        return np.stack(draws, axis=1).astype(np.float64)


def _digest(seed: int, key: str) -> bytes:
    return hashlib.blake2b(repr((seed, key)).encode(), digest_size=16).digest()


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(seed, key), "little")))


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
