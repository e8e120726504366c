"""Features of video files, computed once: kept by what the file holds, which network looked, and at which frames.

A file that was moved, copied or renamed is known again; one that was changed is not. Processes share the work by
filling one folder; what a stopped run has filled is there for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from timeloom.data.clip import Frames
from timeloom.data.table_builder import cache_folder
from timeloom.errors import TimeloomError
from timeloom.evaluate.content_hash import content_hash
from timeloom.evaluate.metrics.features import FeatureSet, Places
from timeloom.evaluate.windows import read_ahead
from timeloom.tensor_cache import TensorCache

Extract: TypeAlias = Callable[[Frames], ArrayLike | Tensor]


class FeatureCache:
    """A folder of features, a file a video.

    Args:
        extractor: all that decides what a network says of given frames: a hash of its weights, how it prepares pixels,
            precision.
        output: what is taken of the network, "features" or "logits".
        sampling: which frames of a file are taken, at which size.
        folder: by default a folder of Timeloom's cache (TIMELOOM_CACHE).
    """

    def __init__(self, extractor: Any, output: str, sampling: Any, folder: Path | None = None) -> None:
        self.files = TensorCache(folder or cache_folder() / "features", extractor, output, sampling)

    def path(self, video: Path) -> Path:
        """Where the features of a video are kept. Raises TimeloomError where the video cannot be read."""
        return self.files.path(content_hash(video))

    def fill(
        self,
        videos: Mapping[str, Path],
        read: Callable[[Path], Frames],
        extract: Extract,
        batch_size: int = 8,
        rank: int = 0,
        world: int = 1,
        done: Callable[[int], None] = lambda count: None,
        workers: int = 0,
    ) -> dict[str, str]:
        """Compute what is not there yet.

        Args:
            videos: {name: file}.
            read: frames of a file, uint8 (F, H, W, 3).
            extract: what a network says of frames (B, F, H, W, 3), a row of features for each video, or for each frame,
                video by video. Where it refuses a batch, its videos are tried alone.
            batch_size: videos at once; those of another size than the one before begin a new batch.
            rank: of `world` processes, each of which takes its share of the videos.
            world: number of processes.
            done: hears how many videos more are finished.
            workers: processes that read ahead while the network computes; with any, `read` can be pickled.

        Returns:
            {name: why} of videos that cannot be read, or whose features are not finite; for `open`.

        Raises:
            TimeloomError: the cache cannot be written.
        """
        broken: dict[str, str] = {}
        waiting: dict[str, tuple[Path, Frames]] = {}

        def finish() -> None:
            if waiting:
                broken.update(self._extract(waiting, extract))
                done(len(waiting))
                waiting.clear()

        def wanted() -> Iterator[tuple[tuple[str, Path], Path]]:
            for name in list(videos)[rank::world]:
                try:
                    place = self.path(videos[name])
                except TimeloomError as error:
                    broken[name] = str(error)
                    done(1)
                    continue
                if self.files.get(place) is not None:
                    done(1)
                    continue
                yield (name, place), videos[name]

        for (name, place), frames in read_ahead(wanted(), read, workers, ahead=batch_size + workers):
            if isinstance(frames, TimeloomError):
                broken[name] = str(frames)
                done(1)
                continue
            if any(other.shape != frames.shape for _, other in waiting.values()):
                finish()
            waiting[name] = place, frames
            if len(waiting) == batch_size:
                finish()
        finish()
        return broken

    def _extract(self, clips: Mapping[str, tuple[Path, Frames]], extract: Extract) -> dict[str, str]:
        """Compute and keep the features of a batch; {name: why} of videos that have none."""
        try:
            rows = torch.as_tensor(extract(np.stack([frames for _, frames in clips.values()])))
        except TimeloomError as error:
            if len(clips) == 1:
                return dict.fromkeys(clips, str(error))
            alone = [self._extract({name: clip}, extract) for name, clip in clips.items()]
            return {name: why for broken in alone for name, why in broken.items()}
        if rows.ndim != 2 or len(rows) % len(clips) or len(rows) == 0:
            raise TimeloomError(f"The network gave features {tuple(rows.shape)} for {len(clips)} videos.")
        broken: dict[str, str] = {}
        for (name, (path, _)), own in zip(clips.items(), rows.cpu().unflatten(0, (len(clips), -1)), strict=True):
            finite = torch.isfinite(own)
            if not finite.all():
                broken[name] = f"{int((~finite).sum())} of its {own.numel()} features are not finite."
                continue
            try:
                self.files.put(path, own.squeeze(0))
            except OSError as error:
                raise TimeloomError(
                    f"{path.parent}: {error.strerror}; features cannot be kept. TIMELOOM_CACHE names another folder."
                ) from error
        return broken

    def open(
        self, videos: Mapping[str, Path], broken: Mapping[str, str] | None = None, label: str = "features"
    ) -> FeatureSet:
        """What was kept of these videos, read from the files as it is needed; the rest is `missing`.

        `broken` is what `fill` answered, of all processes together. Raises DamagedFile when a file that is needed is
        not what was written; `fill` makes it again.
        """
        missing = dict(broken or {})
        paths: dict[str, Path] = {}
        for name, video in videos.items():
            if name in missing:
                continue
            try:
                paths[name] = self.path(video)
            except TimeloomError as error:
                missing[name] = str(error)
                continue
            if not paths[name].is_file():
                del paths[name]
                missing[name] = "its features were not computed."
        files = list(paths.values())

        def read(places: Places) -> NDArray[Any]:
            return _stack([_features(files[place]) for place in places], [str(files[place]) for place in places])

        return FeatureSet(list(paths), read, missing, label)


def _features(path: Path) -> NDArray[Any]:
    value = TensorCache.read(path)
    if value is None:
        raise TimeloomError(f"{path}: is gone; compute the features again.")
    return value.double().numpy()


def _stack(features: Sequence[NDArray[Any]], files: Sequence[str]) -> NDArray[Any]:
    for own, file in zip(features, files, strict=True):
        if own.shape != features[0].shape:
            raise TimeloomError(f"{file}: features of shape {own.shape} beside others of {features[0].shape}.")
    return np.stack(features)
