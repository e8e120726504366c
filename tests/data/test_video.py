"""Films are made here by PyAV itself; frame i is grey of level 8·i, so that a frame says which one it is."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from timeloom.data.video import probe_video, read_metadata, read_video
from timeloom.errors import TimeloomError

STEP = 8


def make_film(
    path: Path,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 8),
    size: tuple[int, int] = (32, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    images: Sequence[np.ndarray] | None = None,
    aspect: Fraction | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    audio: bool = False,
) -> Path:
    """Write frames shown at `pts`; grey of level 8·i unless `images` (H, W, 3) are given."""
    pts = range(16 if images is None else len(images)) if pts is None else pts
    height, width = size if images is None else images[0].shape[:2]
    lossless = {"libx264": {"crf": "1"}, "libvpx": {"crf": "4", "b": "2M"}}.get(codec, {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1 / time_base, options={**lossless, **(options or {})})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, pix_fmt, time_base
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=8000) if audio else None
        for i, time in enumerate(pts):
            image = images[i] if images is not None else np.full((height, width, 3), STEP * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            container.mux(sound.encode(silence()))
            container.mux(sound.encode())
    return path


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    return frame


def which(frames: np.ndarray) -> list[int]:
    """The number that each grey frame carries."""
    return [round(float(frame.mean()) / STEP) for frame in frames]


def corners() -> np.ndarray:
    """A wide image: red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32], image[16:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    return image


def corner_names(image: np.ndarray) -> str:
    names = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w"}
    h, w = image.shape[:2]
    places = [(4, 4), (4, w - 5), (h - 5, 4), (h - 5, w - 5)]
    return "".join(names[tuple(int(v > 128) for v in image[place])] for place in places)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.ts", "libx264")],
)
def test_every_container_gives_all_frames_and_any_window(tmp_path: Path, name: str, codec: str) -> None:
    path = make_film(tmp_path / name, pts=range(24), codec=codec, options={"g": "5"})
    info = probe_video(path)
    assert (info.width, info.height, info.fps) == (48, 32, 8)
    assert info.duration_s == pytest.approx(3, abs=0.01)
    assert info.num_frames in (24, None)
    frames = read_video(path)
    assert frames.shape == (24, 32, 48, 3) and frames.dtype == np.uint8
    assert which(frames) == list(range(24))
    for first in range(24):
        assert which(read_video(path, 1, 8, start_s=first / 8)) == [first]
    assert which(read_video(path, 4, 4, start_s=1.0)) == [8, 10, 12, 14]
    assert which(read_video(path, 3, start_s=2.0)) == [16, 17, 18]


@pytest.mark.parametrize("rate", [Fraction(6), Fraction(8), Fraction(30000, 1001), Fraction(25), Fraction(7, 3)])
def test_frames_are_those_on_the_screen_at_each_time(tmp_path: Path, rate: Fraction) -> None:
    path = make_film(tmp_path / "a.mp4", pts=range(30), time_base=1 / rate)
    expected = [int(Fraction(i, 12) * rate) for i in range(12)]
    assert which(read_video(path, 12, 12)) == expected


def test_a_variable_frame_rate_goes_by_presentation_times(tmp_path: Path) -> None:
    pts = [0, 10, 20, 100, 200, 210, 220, 230, 300, 400]
    path = make_film(tmp_path / "a.mkv", pts=pts, time_base=Fraction(1, 100))
    times = [i / 4 for i in range(16)]
    expected = [max(i for i, p in enumerate(pts) if p / 100 <= time + 1e-9) for time in times]
    assert which(read_video(path, 16, 4)) == expected
    assert which(read_video(path, 4, 10, start_s=1.9)) == [3, 4, 5, 6]
    assert which(read_video(path)) == list(range(10))


def test_reading_to_the_end_at_another_rate(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4")
    assert which(read_video(path, fps=4)) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert which(read_video(path, fps=16, start_s=1.75)) == [14, 14, 15, 15]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_count_from_the_first_frame_where_the_start_is_not_zero(tmp_path: Path, name: str) -> None:
    path = make_film(tmp_path / name, pts=range(40, 56))
    assert which(read_video(path, 4, 8)) == [0, 1, 2, 3]
    assert which(read_video(path, 2, 8, start_s=1.5)) == [12, 13]
    assert probe_video(path).duration_s == pytest.approx(2, abs=0.01)


def test_an_edit_list_hides_what_it_cuts(tmp_path: Path) -> None:
    """The film's own edit list is patched to show 1 s from 0.5 s on."""
    path = make_film(tmp_path / "a.mp4", options={"bf": "0", "g": "4"})
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 12  # after the name, version and flags, and the number of entries
    movie_ticks = int.from_bytes(content[(start := content.index(b"mvhd") + 16) : start + 4], "big")
    media_ticks = int.from_bytes(content[(start := content.index(b"mdhd") + 16) : start + 4], "big")
    content[entry : entry + 8] = movie_ticks.to_bytes(4, "big") + (media_ticks // 2).to_bytes(4, "big")
    path.write_bytes(content)
    assert which(read_video(path)) == list(range(4, 12))
    assert which(read_video(path, 2, 8, start_s=0.5)) == [8, 9]
    info = probe_video(path)
    assert info.duration_s == pytest.approx(1)
    assert info.num_frames == 8


def test_a_phone_film_is_turned_upright(tmp_path: Path) -> None:
    """The matrix that a phone held upright writes: turn clockwise by a quarter."""
    path = make_film(tmp_path / "a.mp4", images=[corners()] * 4)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(content)
    assert (probe_video(path).width, probe_video(path).height) == (32, 64)
    assert read_video(path).shape == (4, 64, 32, 3)
    assert corner_names(read_video(path)[0]) == "brwg"
    assert corner_names(read_video(path, height=32, width=16)[0]) == "brwg"


@pytest.mark.parametrize(("rotation", "names"), [(90, "gwrb"), (180, "wbgr"), (-90, "brwg")])
def test_rotation_is_counter_clockwise(tmp_path: Path, rotation: int, names: str) -> None:
    path = make_film(tmp_path / "a.mp4", images=[corners()] * 2, rotation=rotation)
    assert corner_names(read_video(path)[0]) == names


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", images=[corners()] * 2, aspect=Fraction(3, 2))
    assert (probe_video(path).width, probe_video(path).height) == (96, 32)
    frames = read_video(path)
    assert frames.shape == (2, 32, 96, 3) and corner_names(frames[0]) == "rgbw"


def test_odd_sizes(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mkv", size=(31, 45), pix_fmt="yuv444p")
    assert read_video(path).shape == (16, 31, 45, 3)
    assert read_video(path, height=17, width=13).shape == (16, 17, 13, 3)


def test_the_middle_is_kept(tmp_path: Path) -> None:
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 255
    path = make_film(tmp_path / "a.mp4", images=[image])
    frames = read_video(path, height=16, width=16)
    assert frames.shape == (1, 16, 16, 3) and frames[:, :, 2:-2].min() > 240


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    path = make_film(tmp_path / "a.mp4", images=[stripes])
    assert np.abs(read_video(path, height=8, width=8).astype(int) - 127).max() < 20  # the crop's edges ring a little


def test_ten_bits(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv420p10le")
    assert which(read_video(path)) == list(range(16))


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    """A bar that moves between the two fields of a frame leaves no comb."""
    images = []
    for i in range(8):
        image = np.zeros((64, 64, 3), np.uint8)
        image[0::2, 6 * i : 6 * i + 12] = 255
        image[1::2, 6 * i + 3 : 6 * i + 15] = 255
        images.append(image)
    options = {"flags": "+ildct+ilme", "top": "1", "x264-params": "tff=1"}
    path = make_film(tmp_path / "a.mp4", images=images, options=options)
    frames = read_video(path).astype(int)
    assert frames.shape[0] == 8
    comb = np.abs(np.diff(frames[3:5, 8:-8], axis=1)).mean()
    raw = np.abs(np.diff(np.stack(images)[3:5, 8:-8].astype(int), axis=1)).mean()
    assert comb < raw / 4
    assert len(read_video(path, 2, 8, start_s=0.5)) == 2


def test_files_that_hold_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        container.mux(stream.encode(silence()))
        container.mux(stream.encode())
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    wrong = {"sound": "no video stream and sound", "empty": "0 bytes", "text": "not a video", "folder": "is a folder"}
    for name, what in {**wrong, "missing": "no such file"}.items():
        for read in (read_video, probe_video, read_metadata):
            with pytest.raises(TimeloomError, match=f"{name}.mp4.*{what}"):
                read(tmp_path / f"{name}.mp4")


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(sound.encode(silence()))
        container.mux(sound.encode())
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(frame.reformat(format="yuvj420p")))
        container.mux(cover.encode())
    with pytest.raises(TimeloomError, match=r"song.mp4.*cover picture and sound"):
        read_video(tmp_path / "song.mp4")


def test_truncated_films_are_errors_wherever_they_are_cut(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
    late = make_film(tmp_path / "late.mp4", images=list(noise))
    early = make_film(tmp_path / "early.mp4", images=list(noise), options={"preset": "veryfast"})
    with (
        av.open(str(early)) as source,
        av.open(str(tmp_path / "head.mp4"), "w", options={"moov_size": "9000"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    for path, what in ((late, "moov"), (tmp_path / "head.mp4", "cut short")):
        assert len(read_video(path)) == 16
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        for read in (read_video, probe_video):
            with pytest.raises(TimeloomError, match=f"{path.name}.*{what}"):
                read(path)


def test_damage_is_an_error_that_says_where(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
    path = make_film(tmp_path / "a.mp4", images=list(noise))
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(TimeloomError, match=r"a.mp4: is damaged near \d"):
        read_video(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_window_past_the_end_is_an_error(tmp_path: Path, name: str) -> None:
    path = make_film(tmp_path / name, audio=True)
    assert len(read_video(path, 16, 8)) == 16
    wrong = ((17, 8, 0.0), (16, 8, 0.2), (1, 8, 2.0), (1, 8, 1e3), (17, None, 0.0), (None, 8, 2.0), (None, None, 3.0))
    for wanted in wrong:
        with pytest.raises(TimeloomError, match=rf"{name}.*ends at 2\.0"):
            read_video(path, *wanted)


def test_impossible_arguments(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4")
    sizes: list[dict[str, float]] = [{"height": 8}, {"height": 0, "width": 8}]
    for wrong in ({"num_frames": 0}, {"fps": 0}, {"fps": float("nan")}, {"start_s": -1}, *sizes):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_video(path, **wrong)


def test_metadata_of_other_makers(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "Überfahrt", "comment": "by hand"})
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    metadata = read_metadata(path)
    assert (metadata["title"], metadata["comment"]) == ("Überfahrt", "by hand")


def test_real_clips(shared_data: Path) -> None:
    for path in sorted((shared_data / "clips").rglob("*.mp4"))[::40]:
        info = probe_video(path)
        frames = read_video(path)
        assert frames.shape == (info.num_frames, info.height, info.width, 3)
        assert len(frames) / info.fps == pytest.approx(info.duration_s, abs=0.1)
        window = read_video(path, 16, 8, start_s=info.duration_s - 2, height=64, width=64)
        assert window.shape == (16, 64, 64, 3)
