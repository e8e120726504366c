"""Films whose frames carry their number, in all the ways in which a film can be awkward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

HEIGHT, WIDTH, BARS = 64, 96, 12
COLORS = ((240, 200, 200), (10, 20, 90), (250, 240, 90), (10, 90, 20))
CUTS = (21, 40, 59)
NUM_FRAMES = 80


@dataclass(frozen=True)
class Film:
    """A film, and which numbers its scenes carry."""

    path: Path
    scenes: tuple[range, ...]
    exact: bool = True
    """All of its frames can be read."""


def picture(number: int) -> np.ndarray:
    """A colour for the scene, and below it the number as bars: in Gray code, so that one bar changes at a time."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = COLORS[sum(number >= cut for cut in CUTS)]
    code = number ^ (number >> 1)
    for bar in range(BARS):
        image[HEIGHT // 2 :, bar * 8 : bar * 8 + 8] = 235 if code >> bar & 1 else 20
    return image


def numbers(frames: Sequence[np.ndarray] | np.ndarray) -> list[int]:
    """The numbers that frames (H, W, 3) of any size carry."""
    found = []
    for frame in frames:
        height, width = frame.shape[:2]
        row = frame[int(0.6 * height) : int(0.9 * height)].mean(axis=(0, 2))
        code = sum(1 << bar for bar in range(BARS) if row[int((bar + 0.5) * width / BARS)] > 128)
        number = 0
        while code:
            number ^= code
            code >>= 1
        found.append(number)
    return found


def write_film(
    path: Path,
    time_base: Fraction = Fraction(1, 30),
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    rate: Fraction | None = None,
) -> Path:
    """The NUM_FRAMES numbered pictures as a film."""
    times = range(NUM_FRAMES) if pts is None else pts
    with av.open(str(path), "w") as container:
        crf = {"crf": "10"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate or 1 / time_base, options={**crf, **(options or {})})
        turned = rotation % 180 != 0
        stream.width, stream.height = (HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT)
        stream.pix_fmt, stream.time_base = pixel_format, time_base
        stream.codec_context.time_base, stream.codec_context.thread_count = time_base, 1
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            image = np.ascontiguousarray(np.rot90(picture(number), -rotation // 90))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _edited(path: Path) -> Path:
    """Only what is shown from frame 5 on, for 70 frames, is left: by the film's own edit list."""
    write_film(path, options={"bf": "0", "g": "12", "sc_threshold": "0"})
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 12  # after the name, version and flags, and the number of entries
    movie_ticks = int.from_bytes(content[(start := content.index(b"mvhd") + 16) : start + 4], "big")
    media_ticks = int.from_bytes(content[(start := content.index(b"mdhd") + 16) : start + 4], "big")
    content[entry : entry + 8] = (movie_ticks * 70 // 30).to_bytes(4, "big") + (media_ticks * 5 // 30).to_bytes(
        4, "big"
    )
    path.write_bytes(content)
    return path


def damaged(path: Path) -> Path:
    """The packets of frames 44 to 47 are overwritten."""
    write_film(path, options={"g": "16", "bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in places[44:48]:
        content[place + 6 : place + size] = bytes(b ^ 0x5A for b in content[place + 6 : place + size])
    path.write_bytes(content)
    return path


def _spans(first: int = 0, end: int = NUM_FRAMES) -> tuple[range, ...]:
    edges = [first, *(cut for cut in CUTS if first < cut < end), end]
    return tuple(range(*edge) for edge in pairwise(edges))


VFR = [int(sum(20 + 15 * (i % 4) for i in range(n))) for n in range(NUM_FRAMES)]
KINDS: dict[str, Callable[[Path], Film]] = {
    "30": lambda d: Film(write_film(d / "a.mp4"), _spans()),
    "29.97": lambda d: Film(write_film(d / "a.mp4", Fraction(1001, 30000), options={"sc_threshold": "0"}), _spans()),
    "variable rate": lambda d: Film(
        write_film(d / "a.mkv", Fraction(1, 1000), VFR, {"g": "14", "sc_threshold": "0"}, rate=Fraction(24)), _spans()
    ),
    "B-frames": lambda d: Film(
        write_film(
            d / "a.mp4", options={"bf": "4", "g": "14", "sc_threshold": "0", "b-pyramid": "normal", "b_strategy": "0"}
        ),
        _spans(),
    ),
    "open GOP": lambda d: Film(
        write_film(
            d / "a.mp4", options={"bf": "3", "b_strategy": "0", "x264-params": "open-gop=1:keyint=14:scenecut=0"}
        ),
        _spans(),
    ),
    "open GOP at cuts": lambda d: Film(
        write_film(
            d / "a.mp4", options={"bf": "3", "b_strategy": "0", "x264-params": "open-gop=1:keyint=19:min-keyint=1"}
        ),
        _spans(),
    ),
    "edit list": lambda d: Film(_edited(d / "a.mp4"), _spans(5, 75)),
    "rotated": lambda d: Film(write_film(d / "a.mp4", rotation=90, options={"g": "14", "sc_threshold": "0"}), _spans()),
    "late": lambda d: Film(write_film(d / "a.mp4", pts=range(40, 40 + NUM_FRAMES), options={"g": "14"}), _spans()),
    "late stream": lambda d: Film(write_film(d / "a.ts", options={"g": "14", "sc_threshold": "0"}), _spans()),
    "wide pixels": lambda d: Film(write_film(d / "a.mp4", pixel_aspect=Fraction(3, 2), options={"g": "14"}), _spans()),
    "ten bits": lambda d: Film(
        write_film(d / "a.mp4", pixel_format="yuv420p10le", options={"g": "14", "sc_threshold": "0"}), _spans()
    ),
    "interlaced": lambda d: Film(
        write_film(d / "a.mp4", options={"flags": "+ildct+ilme", "x264-params": "tff=1", "g": "14"}), _spans()
    ),
    "VP9": lambda d: Film(
        write_film(
            d / "a.webm",
            Fraction(1, 30),
            codec="libvpx-vp9",
            options={"g": "14", "cpu-used": "8", "deadline": "realtime"},
        ),
        _spans(),
    ),
    "MPEG-4": lambda d: Film(write_film(d / "a b'\"ü\n.avi", codec="mpeg4", options={"b": "2M"}), _spans()),
    "damaged": lambda d: Film(damaged(d / "a.mp4"), _spans(), exact=False),
}


@pytest.fixture(scope="session", params=KINDS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Film:
    """One film of each kind."""
    return KINDS[request.param](tmp_path_factory.mktemp("film"))
