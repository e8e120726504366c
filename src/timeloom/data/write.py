"""Writing videos and pictures: the suffix picks the format, and the file tells how it was made.

    write_video("seven.mp4", frames, fps=8, metadata={"prompt": "a red seven moves left", "seed": "0"})

| suffix | format | pixels | clock |
|---|---|---|---|
| .mp4 | H.264, yuv420p, BT.709, CRF 14, index first; even sizes only | near, colour at half resolution | exact |
| .gif | 256 colours a frame, loops | quantised | 1/100 s, right on average; at most 50 fps |
| .webp | animated, lossless, loops | exact | 1/1000 s, right on average |
| .png | one frame: an image; several: a strip, left to right | exact | none |

Metadata is one JSON object: in mp4 the `comment` tag, in GIF and PNG the comment, in WebP EXIF's image description.
The same input gives the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from PIL import GifImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from timeloom.data.animation import IMAGE_DESCRIPTION
from timeloom.data.clip import Frames
from timeloom.data.whole_file import replacing
from timeloom.errors import TimeloomError, unknown_name

BT709 = 1  # FFmpeg's number for the matrix, the primaries and the transfer curve alike
LIMITED_RANGE = 1
MAX_SIDE = {".mp4": 16384, ".gif": 65535, ".webp": 16383, ".png": 2**31 - 1}
MAX_FPS = {".mp4": 1000, ".gif": 50, ".webp": 1000, ".png": 1000}  # a GIF's shorter delays are ignored by viewers
IMAGE_SUFFIXES = (".png", ".webp")


def write_video(
    path: str | os.PathLike[str],
    frames: Frames,
    fps: float = 8,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `frames`, uint8 (F, H, W, 3) RGB, at `fps` frames a second, in the format of `path`'s suffix.

    Folders on the way are made. The file appears whole or not at all.

    Raises: TimeloomError, naming the path, where it exists and not `overwrite`, cannot be written, or its format cannot
    hold such frames; ValueError where `frames`, `fps` or `metadata` are not as said.
    """
    path = Path(path)
    check_output(path, overwrite)
    _check_frames(path, frames, fps)
    suffix, text = path.suffix.lower(), _as_json(metadata or {})
    rate = Fraction(fps).limit_denominator(1001)
    if suffix == ".mp4":
        content = _encode_mp4(frames, rate, text)
    elif suffix == ".gif":
        content = _encode_gif(frames, rate, text)
    elif suffix == ".webp":
        content = _encode_webp(frames, rate, text)
    else:
        content = _encode_png(np.concatenate(list(frames), axis=1), text)
    replace_file(path, content)


def write_image(
    path: str | os.PathLike[str],
    image: Frames,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write one image, uint8 (H, W, 3) RGB, as .png or .webp, exactly. Raises as `write_video` does."""
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise unknown_name("suffix of an image file", suffix, IMAGE_SUFFIXES)
    write_video(path, np.asarray(image)[None], fps=1, metadata=metadata, overwrite=overwrite)


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise TimeloomError where `write_video` would for `path` alone; worth asking before the frames are made."""
    path = Path(path)
    if path.suffix.lower() not in MAX_SIDE:
        raise unknown_name(f"suffix of {path}:", path.suffix, MAX_SIDE)
    if path.is_dir():
        raise TimeloomError(f"{path}: is a folder; give a file name.")
    if path.exists() and not overwrite:
        raise TimeloomError(f"{path}: exists and is kept. Use --overwrite to replace it, or another name.")


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: what was there stays until the new file is whole on the disk.

    Raises: TimeloomError naming the path where the folder or the disk refuses.
    """
    with replacing(path) as file:
        file.write(content)


def _check_frames(path: Path, frames: Frames, fps: float) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = f"dtype {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"frames must be a uint8 array of shape (F, H, W, 3), not {kind}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must have the shape (F, H, W, 3), none of them 0; not {frames.shape}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be above 0, not {fps}")
    suffix, (count, height, width) = path.suffix.lower(), frames.shape[:3]
    side = max(height, width * count if suffix == ".png" else width)
    if side > MAX_SIDE[suffix]:
        raise TimeloomError(f"{path}: {suffix} holds at most {MAX_SIDE[suffix]} pixels a side, not {side}.")
    if fps > MAX_FPS[suffix]:
        raise TimeloomError(f"{path}: {suffix} holds at most {MAX_FPS[suffix]} frames a second, not {fps:g}.")
    if suffix == ".mp4" and (height % 2 or width % 2):
        raise TimeloomError(
            f"{path}: H.264 needs an even width and height, not {width}x{height}. Write .webp or .gif, or crop a pixel."
        )


def _as_json(metadata: Mapping[str, str]) -> str:
    """ASCII with escapes, which every one of the formats keeps as it is."""
    wrong = [item for item in metadata.items() if not all(isinstance(part, str) for part in item)]
    if wrong:
        raise ValueError(f"metadata must map str to str, not {wrong[0]!r}")
    return json.dumps(dict(metadata))


def _times(count: int, rate: Fraction, ticks_per_s: int) -> list[int]:
    """Delay of each frame in ticks of the format's clock. Rounded as running times, so that errors never add up."""
    starts = [round(i * ticks_per_s / rate) for i in range(count + 1)]
    return [max(1, after - before) for before, after in pairwise(starts)]


def _encode_mp4(frames: Frames, rate: Fraction, text: str) -> bytes:
    count, height, width = frames.shape[:3]
    target = io.BytesIO()
    # Room for the index at the head of the file: it plays while it loads, and needs no second pass as faststart does.
    room = 8192 + 64 * count + 2 * len(text)
    with av.open(target, "w", format="mp4", options={"moov_size": str(room)}) as container:
        container.metadata["comment"] = text
        stream = add_h264(container, rate, height, width)
        for index, image in enumerate(frames):
            frame = as_yuv420p(image)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def add_h264(container: OutputContainer, rate: Fraction, height: int, width: int) -> VideoStream:
    """The H.264 stream of every mp4 that we write."""
    # Without macroblock trees: with x264's AVX code they give other bytes for equal frames.
    stream = container.add_stream("libx264", rate=rate, options={"crf": "14", "preset": "medium", "mbtree": "0"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # the same bytes on every machine
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def as_yuv420p(image: Frames) -> av.VideoFrame:
    """An image, uint8 (H, W, 3), as the frame that `add_h264`'s stream takes; its time is to be set."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
    )


def _encode_gif(frames: Frames, rate: Fraction, text: str) -> bytes:
    """Every frame whole, with its own palette. Pillow's own writer would merge equal frames and so lose their count."""
    height, width = frames.shape[1:3]
    comment = text.encode("ascii")
    content = [b"GIF89a", struct.pack("<HHBBB", width, height, 0, 0, 0), b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"]
    blocks = [comment[i : i + 255] for i in range(0, len(comment), 255)]
    content += [b"\x21\xfe", *(bytes([len(block)]) + block for block in blocks), b"\0"]
    for image, delay in zip(frames, _times(len(frames), rate, 100), strict=True):
        picture = Image.fromarray(np.ascontiguousarray(image)).quantize(256)
        content += GifImagePlugin.getdata(picture, duration=delay * 10, include_color_table=True)
    return b"".join([*content, b";"])


def _encode_webp(frames: Frames, rate: Fraction, text: str) -> bytes:
    """Lossless stills in a container of our own: libwebp's would merge equal frames and so lose their count."""
    height, width = frames.shape[1:3]
    area = _uint24(width - 1) + _uint24(height - 1)
    animated_with_exif = 0x02 | 0x08
    chunks = [_chunk(b"VP8X", bytes([animated_with_exif, 0, 0, 0]) + area), _chunk(b"ANIM", bytes(6))]
    for image, delay in zip(frames, _times(len(frames), rate, 1000), strict=True):
        still = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(still, "WEBP", lossless=True, quality=75, method=4)
        replaces_all = 0x02
        content = area + _uint24(delay) + bytes([replaces_all]) + still.getvalue()[12:]
        chunks.append(_chunk(b"ANMF", _uint24(0) + _uint24(0) + content))
    exif = Image.Exif()
    exif[IMAGE_DESCRIPTION] = text
    chunks.append(_chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0")))
    return _chunk(b"RIFF", b"WEBP" + b"".join(chunks))


def _uint24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _encode_png(image: Frames, text: str) -> bytes:
    target, info = io.BytesIO(), PngInfo()
    info.add_text("Comment", text)
    Image.fromarray(np.ascontiguousarray(image)).save(target, "PNG", pnginfo=info)
    return target.getvalue()
