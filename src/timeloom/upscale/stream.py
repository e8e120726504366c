"""A video of any length made larger in constant memory: decoded, enlarged and encoded a few frames at a time.

Every frame keeps its own time on the file's clock, whether the rate varies or not, and the sound is copied packet by
packet, so picture and sound stay together.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from timeloom.data.animation import AnimationMovie
from timeloom.data.clip import Frames
from timeloom.data.movie import Movie, TimedFrame
from timeloom.data.video import open_movie
from timeloom.data.whole_file import replacing
from timeloom.data.write import MAX_SIDE, add_h264, as_yuv420p
from timeloom.errors import TimeloomError
from timeloom.upscaler import Upscaler

SUFFIX = ".mp4"


@dataclass
class Streamed:
    """What was written."""

    frames: int = 0
    width: int = 0
    height: int = 0
    sound: str = "none"
    """copied, none, or what was left out and why."""


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    sound: bool = True,
    progress: Callable[[int], object] = lambda frames: None,
) -> Streamed:
    """Write `source`, enlarged, as H.264 to `target`, which appears whole or not at all.

    Args:
        source: any video, or picture, that `read_video` reads.
        target: an .mp4.
        upscaler: makes frames larger.
        sound: copy it.
        progress: told how many frames were finished, each time.

    Raises:
        TimeloomError: the source cannot be read or is damaged on the way, or the target cannot be written or cannot
            hold such frames.
    """
    done = Streamed()
    with _refusals_told(source, target, done), ExitStack() as stack:
        movie = stack.enter_context(closing(open_movie(source)))
        file = stack.enter_context(replacing(target))
        options = {"movflags": "faststart"}  # the index first, so that it plays while it loads
        container = stack.enter_context(av.open(file.name, "w", format="mp4", options=options))
        container.metadata.update(movie.tags())
        frames = movie.frames(0.0)
        first = next(frames)
        height, width = first.draw(None).shape[:2]
        done.height, done.width = height * upscaler.scale, width * upscaler.scale
        _check_size(target, done)
        video = add_h264(container, Fraction(1 / movie.interval_s).limit_denominator(1001), done.height, done.width)
        video.codec_context.time_base = movie.tick_s
        tracks = _Sound(source, container, stack) if sound and not isinstance(movie, AnimationMovie) else None
        done.sound = tracks.told if tracks else "none"
        durations: dict[int | None, int | None] = {}

        def mux(packets: list[Packet]) -> None:
            for packet in packets:
                packet.duration = (
                    durations.pop(packet.pts, None) or 1
                )  # the encoder forgets it; the last frame needs it
                container.mux(packet)

        for batch in _batches(first, frames, upscaler.at_once(height, width)):
            large = upscaler.enlarge(np.stack([image for _, image in batch]))
            for (frame, _), image in zip(batch, large, strict=True):
                if tracks:
                    tracks.copy_until(movie.first_s + Fraction(frame.time_s))
                encoded = _timed(image, frame, movie, video)
                durations[encoded.pts] = encoded.duration
                mux(video.encode(encoded))
            done.frames += len(batch)
            progress(len(batch))
        mux(video.encode())
        if tracks:
            tracks.copy_until(None)
    return done


@contextmanager
def _refusals_told(source: Path, target: Path, done: Streamed) -> Iterator[None]:
    """What FFmpeg refuses within ends in a sentence. Raises TimeloomError."""
    try:
        yield
    except av.FFmpegError as error:
        raise TimeloomError(
            f"{source}: cannot be written to {target} after {done.frames} frames ({error.strerror or error}). Where "
            "its times jump back, as in joined files, write it anew first; sound is left out by --no-sound."
        ) from error


def _check_size(target: Path, done: Streamed) -> None:
    size = f"{done.width}x{done.height}"
    if max(done.width, done.height) > MAX_SIDE[SUFFIX]:
        raise TimeloomError(f"{target}: {SUFFIX} holds at most {MAX_SIDE[SUFFIX]} pixels a side, not {size}.")
    if done.width % 2 or done.height % 2:
        raise TimeloomError(f"{target}: H.264 needs an even width and height, not {size}; crop a pixel of the source.")


def _batches(first: TimedFrame, rest: Iterator[TimedFrame], size: int) -> Iterator[list[tuple[TimedFrame, Frames]]]:
    """A few frames at a time, drawn."""
    batch = [first, *islice(rest, size - 1)]
    while batch:
        yield [(frame, frame.draw(None)) for frame in batch]
        batch = list(islice(rest, size))


def _timed(image: Frames, frame: TimedFrame, movie: Movie, video: VideoStream) -> av.VideoFrame:
    """The image as it goes to the encoder, at its time on the file's clock."""
    encoded = as_yuv420p(image)
    encoded.time_base = video.codec_context.time_base
    encoded.pts = round((movie.first_s + Fraction(frame.time_s)) / movie.tick_s)
    encoded.duration = max(1, round(Fraction(frame.duration_s) / movie.tick_s))
    return encoded


class _Sound:
    """The sound of a file, copied beside its pictures."""

    def __init__(self, source: Path, container: OutputContainer, stack: ExitStack) -> None:
        self._container = container
        opened: InputContainer = stack.enter_context(av.open(str(source.resolve()), metadata_errors="replace"))
        tracks = {stream: str(stream.codec.canonical_name) for stream in opened.streams.audio}
        fitting = [
            stream for stream, codec in tracks.items() if codec in container.supported_codecs and _fits(source, stream)
        ]
        without = sorted({codec for stream, codec in tracks.items() if stream not in fitting})
        self.told = "copied" if fitting else "none"
        if without:
            self.told = f"{self.told}; left out, for {SUFFIX} cannot hold it: {', '.join(without)}"
        self._targets = {stream.index: container.add_stream_from_template(stream) for stream in fitting}
        self._packets: Iterator[Packet] = opened.demux(fitting) if fitting else iter(())
        self._next: Packet | None = next(self._packets, None)

    def copy_until(self, time_s: Fraction | None) -> None:
        """Write the packets up to a time on the file's clock; None: all that are left."""
        while self._next is not None and (time_s is None or _when(self._next) <= time_s):
            packet, self._next = self._next, next(self._packets, None)
            if packet.dts is not None:  # the last one of a stream is empty
                packet.stream = self._targets[packet.stream.index]
                self._container.mux(packet)


def _fits(source: Path, stream: AudioStream) -> bool:
    """Whether an mp4 takes the sound as this file has it, tried with its first packet: PCM from a .mkv it does not."""
    try:
        with av.open(str(source.resolve()), metadata_errors="replace") as again, ExitStack() as stack:
            trial = stack.enter_context(av.open(io.BytesIO(), "w", format="mp4"))
            target = trial.add_stream_from_template(stream)
            packet = next(again.demux(again.streams[stream.index]))
            if packet.dts is not None:
                packet.stream = target
                trial.mux(packet)
    except av.FFmpegError:
        return False
    return True


def _when(packet: Packet) -> Fraction:
    return Fraction(packet.dts or 0) * Fraction(packet.time_base)
