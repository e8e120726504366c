from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timeloom.data import write
from timeloom.data.contact_sheet import contact_sheet, write_contact_sheet
from timeloom.data.video import probe_video, read_metadata, read_video
from timeloom.data.write import check_output, write_image, write_video
from timeloom.errors import TimeloomError

MOVING = [".mp4", ".gif", ".webp"]


def moving_square(num_frames: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """A red square that moves to the right over blue."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[:] = (20, 40, 160)
    for i, frame in enumerate(frames):
        frame[height // 4 : height // 2, i : i + max(1, width // 4)] = (220, 30, 40)
    return frames


@settings(max_examples=25, deadline=None)
@given(
    suffix=st.sampled_from(MOVING),
    num_frames=st.integers(1, 20),
    half_height=st.integers(1, 20),
    half_width=st.integers(1, 20),
    fps=st.sampled_from([1, 2, 5, 6, 7, 8, 10, 12, 15, 16, 20, 24, 25]),
    still=st.booleans(),
)
def test_round_trip_of_count_size_and_rate(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    num_frames: int,
    half_height: int,
    half_width: int,
    fps: int,
    still: bool,
) -> None:
    path = tmp_path_factory.mktemp("videos") / f"a{suffix}"
    frames = moving_square(num_frames, 2 * half_height, 2 * half_width)
    if still:
        frames[:] = frames[0]  # equal frames are not merged
    write_video(path, frames, fps=fps)
    back, info = read_video(path), probe_video(path)
    assert back.shape == frames.shape
    assert info.num_frames == num_frames
    assert (info.height, info.width) == frames.shape[1:3]
    assert info.duration_s == pytest.approx(num_frames / fps, abs=0.0051)
    if suffix == ".gif" and num_frames < fps:
        assert info.fps == pytest.approx(fps, rel=0.5 / (100 * num_frames / fps - 0.5))  # 1/100 s is all it can say
    else:
        assert info.fps == fps
    assert len(read_video(path, num_frames, fps)) == num_frames


@pytest.mark.parametrize("fps", [23.976, 30000 / 1001, 29.97, 59.94, 12.5, 7.3])
def test_rates_that_are_not_whole(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", moving_square(), fps=fps)
    assert probe_video(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-6)
    write_video(tmp_path / "a.webp", moving_square(), fps=fps)
    assert probe_video(tmp_path / "a.webp").fps == pytest.approx(fps, rel=2.5e-3)  # 1/1000 s is all it can say


def test_a_gif_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    write_video(tmp_path / "a.gif", moving_square(), fps=8)
    with Image.open(tmp_path / "a.gif") as image:
        delays = []
        for i in range(image.n_frames):
            image.seek(i)
            delays.append(image.info["duration"])
        assert image.info["loop"] == 0
    assert set(delays) == {120, 130} and sum(delays) == 2000


@pytest.mark.parametrize(("suffix", "mean", "most"), [(".mp4", 2, 128), (".gif", 0, 0), (".webp", 0, 0)])
def test_pixels_come_back(tmp_path: Path, suffix: str, mean: float, most: int) -> None:
    frames = moving_square()
    write_video(tmp_path / f"a{suffix}", frames)
    error = np.abs(read_video(tmp_path / f"a{suffix}").astype(int) - frames)
    assert error.mean() <= mean and error.max() <= most


def test_windows_of_a_gif_choose_each_frame_once(tmp_path: Path) -> None:
    """Rounded delays must not show a frame twice at the rate that it was made for."""
    for fps in (8, 12, 15, 24, 25):
        write_video(tmp_path / "a.gif", moving_square(), fps=fps, overwrite=True)
        assert np.array_equal(read_video(tmp_path / "a.gif", 16, fps), read_video(tmp_path / "a.gif"))


def test_an_mp4_is_what_players_expect(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square())
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(8)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)  # BT.709, limited


def test_many_frames_fit_the_room_for_the_index(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", noise, fps=23.976)
    assert probe_video(tmp_path / "a.mp4").num_frames == 300


@pytest.mark.parametrize("suffix", [*MOVING, ".png"])
@settings(max_examples=15, deadline=None)
@given(metadata=st.dictionaries(st.text(), st.text(max_size=400), max_size=5))
def test_metadata_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("videos") / f"a{suffix}"
    write_video(path, moving_square(1, 2, 2), metadata=metadata)
    assert read_metadata(path) == metadata


@pytest.mark.parametrize("suffix", [*MOVING, ".png"])
def test_metadata_of_a_prompt(tmp_path: Path, suffix: str) -> None:
    metadata = {"prompt": 'eine „rote" Sieben — 红色的七 🎬\n\0' * 100, "seed": "0", "encoder": "x", "": ""}
    write_video(tmp_path / f"a{suffix}", moving_square(), metadata=metadata)
    assert read_metadata(tmp_path / f"a{suffix}") == metadata


@pytest.mark.parametrize("suffix", [*MOVING, ".png"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}{suffix}", moving_square(), metadata={"seed": "0"})
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_png_is_an_image_or_a_strip(tmp_path: Path) -> None:
    frames = moving_square(3, 5, 7)
    write_video(tmp_path / "one.png", frames[:1])
    write_video(tmp_path / "strip.png", frames)
    assert np.array_equal(read_video(tmp_path / "one.png"), frames[:1])
    assert np.array_equal(read_video(tmp_path / "strip.png")[0], np.concatenate(list(frames), axis=1))
    write_image(tmp_path / "image.webp", frames[1], metadata={"seed": "1"})
    assert np.array_equal(read_video(tmp_path / "image.webp")[0], frames[1])
    with pytest.raises(TimeloomError, match="mp4"):
        write_image(tmp_path / "image.mp4", frames[1])


def test_pictures_are_fitted_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", moving_square(1, 40, 90)[0])
    assert read_video(tmp_path / "a.png", height=16, width=16).shape == (1, 16, 16, 3)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(TimeloomError, match=r"a.png.*damaged or cut short"):
        read_video(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_cut_animations_and_windows_past_their_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_video(path, moving_square())
    with pytest.raises(TimeloomError, match=r"ends at 2\.000 s"):
        read_video(path, 16, 8, start_s=0.5)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TimeloomError, match=f"a{suffix}"):
        read_video(path)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    write_video(path, moving_square())
    before = path.read_bytes()
    for attempt in (lambda: write_video(path, moving_square(3)), lambda: check_output(path)):
        with pytest.raises(TimeloomError, match=r"a.webp: exists.*--overwrite"):
            attempt()
    assert path.read_bytes() == before
    write_video(path, moving_square(3), overwrite=True)
    assert len(read_video(path)) == 3


@pytest.mark.parametrize("suffix", [*MOVING, ".png"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", full)
    with pytest.raises(TimeloomError, match=f"a{suffix}: cannot be written .No space left"):
        write_video(path, moving_square(), overwrite=True)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    frames = moving_square()
    for name, what in (
        ("file/a.mp4", "cannot be written"),
        ("folder.mp4", "is a folder"),
        ("a.mp5", "'.mp4'"),
        ("a", "suffix"),
    ):
        with pytest.raises(TimeloomError, match=what) as caught:
            write_video(tmp_path / name, frames)
        assert str(tmp_path / name) in str(caught.value)
    write_video(tmp_path / "new" / "folders" / "a.mp4", frames)
    assert (tmp_path / "new" / "folders" / "a.mp4").exists()


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TimeloomError, match=r"a.mp4: H.264 needs an even width and height, not 33x31"):
        write_video(tmp_path / "a.mp4", moving_square(4, 31, 33))
    write_video(tmp_path / "a.gif", moving_square(4, 31, 33))
    assert read_video(tmp_path / "a.gif").shape == (4, 31, 33, 3)
    with pytest.raises(TimeloomError, match=r"a.gif: .gif holds at most 50 frames a second, not 60"):
        write_video(tmp_path / "a.gif", moving_square(), fps=60, overwrite=True)


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"\(2, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\)"),
        ([], "list"),
    ],
)
def test_frames_are_checked(tmp_path: Path, frames: np.ndarray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        write_video(tmp_path / "a.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_rate_and_metadata_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "a.mp4", moving_square(), fps=0)
    with pytest.raises(ValueError, match="seed"):
        write_video(tmp_path / "a.mp4", moving_square(), metadata={"seed": 0})  # type: ignore[dict-item]


def test_a_contact_sheet_shows_every_clip_in_the_order_of_time(tmp_path: Path) -> None:
    levels = np.zeros((16, 20, 24, 3), np.uint8)
    levels[:] = 15 * np.arange(16, dtype=np.uint8)[:, None, None, None] + 5
    sheet = contact_sheet([levels], frames_per_clip=6, scale=2)
    row = sheet[12 + 20, :, 0]
    assert [int(row[12 + 24 + i * 50]) for i in range(6)] == [5 + 15 * i for i in (0, 3, 6, 9, 12, 15)]
    captions = ["a red seven moves left", "word " * 80, "x" * 300]
    clips = [moving_square(), moving_square(3), levels]
    write_contact_sheet(tmp_path / "a.png", clips, captions, title="three clips")
    write_contact_sheet(tmp_path / "a.png", clips, captions, columns=2, title="three clips")
    wide = read_video(tmp_path / "a.png")[0]
    tall = contact_sheet(clips, captions, title="three clips")
    assert wide.shape[1] > 1.9 * tall.shape[1] and wide.shape[0] < tall.shape[0]
    assert len(contact_sheet(clips)) < len(contact_sheet(clips, captions))


def test_contact_sheets_are_checked() -> None:
    for clips, captions in (([], None), ([moving_square()], ["one", "two"]), ([moving_square()[0]], None)):
        with pytest.raises(ValueError):
            contact_sheet(clips, captions)
