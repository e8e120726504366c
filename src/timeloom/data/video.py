"""Reading videos: frames by presentation time, as a viewer sees them.

frames = read_video("cat.mp4")                                             # every frame
frames = read_video("cat.mp4", num_frames=16, fps=8, start_s=1.5, height=64, width=64)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import numpy as np

from timeloom.data.animation import AnimationMovie, is_picture
from timeloom.data.clip import Frames
from timeloom.data.container import ContainerMovie
from timeloom.data.movie import Media, Movie, Packed, Size, TimedFrame, VideoInfo
from timeloom.errors import TimeloomError

ROUNDING_S = 1e-6  # more than the rounding of floating-point seconds, less than any frame


def read_video(
    path: Media,
    num_frames: int | None = None,
    fps: float | None = None,
    start_s: float = 0.0,
    height: int | None = None,
    width: int | None = None,
) -> Frames:
    """Read a video, a GIF, a WebP or a picture: a file, or one that is `Packed` in another.

    `fps` given: frame i is the one on the screen at `start_s` + i / `fps` (the last with a presentation time not
    later), whatever the source's rate, constant or not; `num_frames` None reads to the end. `fps` None: the source's
    own frames from `start_s` on, `num_frames` of them or all. Seconds count from the first frame that is shown.

    `height` and `width` given: resized (bicubic, antialiased) until the picture covers them, then its middle. Else the
    size as displayed. Rotation, sample aspect ratio, edit lists are honoured; interlaced frames are made whole (bwdif).

    Returns: uint8 (F, H, W, 3), RGB.
    Raises: TimeloomError, naming the file, where it is missing, no video, damaged, cut short, or ends before the
    window does. ValueError for arguments that no file could meet.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps must be above 0, not {fps}")
    if not 0 <= start_s < float("inf"):
        raise ValueError(f"start_s must be at least 0, not {start_s}")
    size = None if height is None or width is None else (height, width)
    if (size is None and height != width) or (size is not None and min(size) < 1):
        raise ValueError(f"give height and width together, each at least 1; not height={height}, width={width}")
    with closing(open_movie(path)) as movie:
        name = path.path if isinstance(path, Packed) else Path(path)
        if fps is None:
            images = _consecutive(movie, name, start_s, num_frames, size)
        else:
            images = _at_times(movie, name, start_s, fps, num_frames, size)
        return np.stack(list(images))


def probe_video(path: Media) -> VideoInfo:
    """Size, rate and duration of a video: one frame and the last packets are read, the rest is not.

    Raises: TimeloomError, naming the file, where it is missing, no video, or cut short.
    """
    with closing(open_movie(path)) as movie:
        return movie.probe()


def read_metadata(path: Media) -> dict[str, str]:
    """What `write_video` or `write_image` stored in the file; for files of other makers, the tags they have.

    Raises: TimeloomError, naming the file, where it cannot be opened.
    """
    with closing(open_movie(path)) as movie:
        tags = movie.tags()
    comments = [value for key, value in tags.items() if key.lower() == "comment"]
    try:
        stored = json.loads(comments[0]) if comments else None
    except ValueError:
        return tags
    return {str(key): str(value) for key, value in stored.items()} if isinstance(stored, dict) else tags


def open_movie(media: Media) -> Movie:
    """The file, opened and its first frame decoded; who asks closes it. Raises as `read_video` does."""
    if isinstance(media, Packed):
        if not media.content:
            raise TimeloomError(f"{media.path}: is empty (0 bytes).")
        return (AnimationMovie if is_picture(media.content[:12]) else ContainerMovie)(media.path, media.content)
    path = Path(media)
    try:
        if path.is_dir():
            raise TimeloomError(f"{path}: is a folder, not a video.")
        if path.stat().st_size == 0:
            raise TimeloomError(f"{path}: is empty (0 bytes).")
        with path.open("rb") as file:
            head = file.read(12)
        return AnimationMovie(path) if is_picture(head) else ContainerMovie(path)
    except FileNotFoundError as error:
        raise TimeloomError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise TimeloomError(f"{path}: cannot be opened ({error.strerror}).") from error


def _slack_s(movie: Movie) -> float:
    """How much later than asked a frame may begin: half a tick, where the file's clock cannot tell its rate exactly."""
    exact = (movie.interval_s / movie.tick_s).denominator == 1
    return ROUNDING_S if exact else max(ROUNDING_S, float(min(movie.tick_s, movie.interval_s)) / 2)


def _at_times(
    movie: Movie, path: Path, start_s: float, fps: float, num_frames: int | None, size: Size | None
) -> Iterator[Frames]:
    """The images on the screen at `start_s` + i / `fps`."""
    slack_s = _slack_s(movie)
    times = (start_s + i / fps for i in (count() if num_frames is None else range(num_frames)))
    time_s: float | None = next(times)
    shown: TimedFrame | None = None
    end_s, given = 0.0, 0
    for frame in movie.frames(start_s):
        image: Frames | None = None
        while shown is not None and time_s is not None and time_s + slack_s < frame.time_s:
            image = shown.draw(size) if image is None else image
            yield image
            given, time_s = given + 1, next(times, None)
        if time_s is None:
            return
        shown, end_s = frame, frame.time_s + frame.duration_s
    image = None
    while shown is not None and time_s is not None and time_s + ROUNDING_S < end_s:
        image = shown.draw(size) if image is None else image
        yield image
        given, time_s = given + 1, next(times, None)
    if time_s is not None and (num_frames is not None or not given):
        last_s = start_s + ((num_frames or 1) - 1) / fps
        window = f"from {start_s:.3f} s to a frame at {last_s:.3f} s"
        raise TimeloomError(f"{path}: ends at {end_s:.3f} s, before the window does ({window}).")


def _consecutive(
    movie: Movie, path: Path, start_s: float, num_frames: int | None, size: Size | None
) -> Iterator[Frames]:
    """The file's own frames from the one on the screen at `start_s`."""
    slack_s = _slack_s(movie)
    shown: TimedFrame | None = None
    given, end_s = 0, 0.0

    def from_start() -> Iterator[TimedFrame]:
        nonlocal shown, end_s
        for frame in movie.frames(start_s):
            if shown is not None and start_s + slack_s < frame.time_s:
                yield shown
            shown, end_s = frame, frame.time_s + frame.duration_s
        if shown is not None and start_s + ROUNDING_S < end_s:
            yield shown

    for frame in islice(from_start(), num_frames):
        given += 1
        yield frame.draw(size)
    if not given or (num_frames is not None and given < num_frames):
        wanted = f"{num_frames} frames" if num_frames else "a frame"
        found = f"{given} frames from {start_s:.3f} s on (it ends at {end_s:.3f} s)"
        raise TimeloomError(f"{path}: has {found}, not {wanted}.")
