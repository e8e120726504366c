"""Videos of every kind through the stream, with a network that is too small to be any good."""

import errno
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from timeloom.data import probe_video, read_metadata, read_video, write_video
from timeloom.errors import TimeloomError
from timeloom.models.rcan import RCAN
from timeloom.upscale import stream
from timeloom.upscale.stream import upscale_video
from timeloom.upscaler import Upscaler

TICK = Fraction(1, 600)


class Nearest(RCAN):
    """Every pixel becomes scale² of them, so that what comes out is known."""

    def extract(self, images_NCHW):
        return images_NCHW

    def reconstruct(self, features):
        return features.float().repeat_interleave(self.config.scale, -1).repeat_interleave(self.config.scale, -2)


@pytest.fixture()
def upscaler() -> Upscaler:
    return Upscaler(Nearest(num_groups=1, num_blocks=1, width=4, reduction=2, scale=4), tile=16)


def pictures(count: int, height: int = 16, width: int = 24) -> np.ndarray:
    """A gradient that becomes lighter."""
    ramp = np.linspace(0, 150, width)[None, None, :, None] + np.arange(count)[:, None, None, None] * 10
    return np.broadcast_to(ramp, (count, height, width, 3)).clip(0, 255).astype(np.uint8)


def make_video(path: Path, frames, times=None, sound=None, pix_fmt="yuv420p", codec="libx264") -> Path:
    """Frames at `times` in ticks of 1/600 s, and two tones of sound beside them."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=10)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], pix_fmt
        video.codec_context.time_base = TICK
        audio = container.add_stream(sound, rate=48000) if sound else None
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[index] if times else index * 60), TICK
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio:
            for index in range(20):
                tone = np.sin(np.arange(1024) * (0.05 + 0.01 * index)).astype(np.float32)[None].repeat(2, axis=0) / 3
                samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
                samples.sample_rate, samples.pts, samples.time_base = 48000, index * 1024, Fraction(1, 48000)
                container.mux(audio.encode(samples))
            container.mux(audio.encode())
    return path


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets_of(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio) if p.pts is not None]


def test_frames_rate_and_what_the_file_tells_stay(upscaler: Upscaler, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source, pictures(9), fps=8, metadata={"prompt": "a ramp"})
    counted: list[int] = []
    done = upscale_video(source, target, upscaler, progress=counted.append)
    assert (done.frames, done.width, done.height, done.sound, sum(counted)) == (9, 96, 64, "none", 9)
    before, after = probe_video(source), probe_video(target)
    assert (after.num_frames, after.fps, after.duration_s) == (9, before.fps, before.duration_s)
    assert read_metadata(target) == {"prompt": "a ramp"}
    wanted = read_video(source).repeat(4, axis=1).repeat(4, axis=2)
    assert np.abs(read_video(target).astype(int) - wanted).mean() < 3


def test_a_varying_rate_keeps_every_time(upscaler: Upscaler, tmp_path: Path) -> None:
    times = [0, 20, 200, 230, 777, 800]
    source = make_video(tmp_path / "in.mp4", pictures(6), times)
    upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert times_of(tmp_path / "out.mp4") == times_of(source) == [time * TICK for time in times]


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_sound_is_copied_packet_by_packet(codec: str, upscaler: Upscaler, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pictures(6), sound=codec)
    done = upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert done.sound == "copied"
    before, after = packets_of(source), packets_of(tmp_path / "out.mp4")
    assert [content for _, content in after] == [content for _, content in before]
    assert all(abs(a - b) < Fraction(1, 1000) for (a, _), (b, _) in zip(after, before, strict=True))
    assert times_of(tmp_path / "out.mp4") == times_of(source)
    upscale_video(source, tmp_path / "mute.mp4", upscaler, sound=False)
    with av.open(str(tmp_path / "mute.mp4")) as container:
        assert not container.streams.audio


def test_the_last_frame_stays_as_long_as_it_did(upscaler: Upscaler, tmp_path: Path) -> None:
    images = [Image.fromarray(image) for image in pictures(3)]
    images[0].save(tmp_path / "in.webp", save_all=True, append_images=images[1:], duration=[100, 100, 2000])
    upscale_video(tmp_path / "in.webp", tmp_path / "out.mp4", upscaler)
    assert probe_video(tmp_path / "out.mp4").duration_s == pytest.approx(2.2, abs=0.01)
    assert times_of(tmp_path / "out.mp4") == [0, Fraction(1, 10), Fraction(2, 10)]


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le"])
def test_sound_that_an_mp4_cannot_hold_is_told(codec: str, upscaler: Upscaler, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", pictures(3), sound=codec)
    done = upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert done.sound == f"none; left out, for .mp4 cannot hold it: {codec}"
    assert probe_video(tmp_path / "out.mp4").num_frames == 3


def test_odd_sizes_one_frame_and_one_pixel(upscaler: Upscaler, tmp_path: Path) -> None:
    for index, frames in enumerate((pictures(2, 15, 7), pictures(1, 16, 16), pictures(1, 1, 1))):
        source, target = tmp_path / f"{index}.webp", tmp_path / f"{index}.mp4"
        write_video(source, frames, fps=8)
        upscale_video(source, target, upscaler)
        count, height, width = frames.shape[:3]
        assert read_video(target).shape == (count, 4 * height, 4 * width, 3)


def test_an_odd_result_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "in.webp", pictures(2, 15, 7), fps=8)
    three = Upscaler(Nearest(num_groups=1, num_blocks=1, width=4, reduction=2, scale=3))
    with pytest.raises(TimeloomError, match=r"even width and height, not 21x45"):
        upscale_video(tmp_path / "in.webp", tmp_path / "out.mp4", three)
    assert [path.name for path in tmp_path.iterdir()] == ["in.webp"]


def test_ten_bits_are_read(upscaler: Upscaler, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pictures(3), pix_fmt="yuv420p10le")
    upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert np.abs(read_video(tmp_path / "out.mp4")[:, ::4, ::4].astype(int) - read_video(source)).mean() < 3


def test_a_turned_video_comes_out_upright(
    upscaler: Upscaler,
    tmp_path: Path,
) -> None:
    source = make_video(tmp_path / "in.mp4", pictures(2))
    content = source.read_bytes()
    one, matrix = (
        (1 << 16).to_bytes(4, "big"),
        content.index((1 << 16).to_bytes(4, "big") + bytes(12) + (1 << 16).to_bytes(4, "big"), content.index(b"tkhd")),
    )
    quarter = bytes(4) + one + bytes(4) + (-(1 << 16)).to_bytes(4, "big", signed=True) + bytes(4)
    source.write_bytes(content[:matrix] + quarter + content[matrix + 20 :])
    assert probe_video(source).width == 16
    upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert read_video(tmp_path / "out.mp4").shape == (2, 96, 64, 3)
    assert np.abs(read_video(tmp_path / "out.mp4")[:, ::4, ::4].astype(int) - read_video(source)).mean() < 3


@pytest.mark.parametrize("where", ["network", "disk"])
def test_what_fails_half_way_leaves_the_old_file(where: str, upscaler: Upscaler, tmp_path: Path, monkeypatch) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source, pictures(8), fps=8)
    target.write_bytes(b"the old one")
    calls = []

    def fail(*args):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device") if where == "disk" else RuntimeError("broken")
        return real(*args)

    name = "_timed" if where == "disk" else "as_yuv420p"
    real = getattr(stream, name)
    monkeypatch.setattr(stream, name, fail)
    with pytest.raises(TimeloomError if where == "disk" else RuntimeError, match=r"No space left|broken"):
        upscale_video(source, target, upscaler)
    assert target.read_bytes() == b"the old one"
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}


def test_damage_on_the_way_is_an_error_and_leaves_nothing(upscaler: Upscaler, tmp_path: Path) -> None:
    source = make_video(
        tmp_path / "in.mkv",
        pictures(40, 64, 64) + np.random.default_rng(0).integers(0, 90, (40, 64, 64, 3), dtype=np.uint8),
    )
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    source.write_bytes(content)
    with pytest.raises(TimeloomError, match="damaged"):
        upscale_video(source, tmp_path / "out.mp4", upscaler)
    assert not (tmp_path / "out.mp4").exists()


def test_times_that_jump_back_are_an_error_that_names_the_file(upscaler: Upscaler, tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", pictures(20)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(one * 2)
    with pytest.raises(TimeloomError, match=r"joined\.ts: cannot be written to .*out\.mp4 after \d+ frames"):
        upscale_video(tmp_path / "joined.ts", tmp_path / "out.mp4", upscaler)
    assert {path.name for path in tmp_path.iterdir()} == {"one.ts", "joined.ts"}


def test_large_tiles_take_no_more_frames_at_once(tmp_path: Path, monkeypatch) -> None:
    upscaler = Upscaler(Nearest(num_groups=1, num_blocks=1, width=4, reduction=2, scale=4), tile=10_000)
    write_video(tmp_path / "in.mp4", pictures(40, 64, 96), fps=8)
    most = []
    real = upscaler.enlarge
    monkeypatch.setattr(upscaler, "enlarge", lambda frames: most.append(len(frames)) or real(frames))
    upscale_video(tmp_path / "in.mp4", tmp_path / "out.mp4", upscaler)
    assert max(most) == 128**2 // (64 * 96) and sum(most) == 40


def test_only_a_few_frames_are_ever_in_memory(upscaler: Upscaler, tmp_path: Path, monkeypatch) -> None:
    write_video(tmp_path / "in.mp4", pictures(40), fps=8)
    most = []
    real = upscaler.enlarge
    monkeypatch.setattr(upscaler, "enlarge", lambda frames: most.append(len(frames)) or real(frames))
    upscale_video(tmp_path / "in.mp4", tmp_path / "out.mp4", upscaler)
    assert max(most) == 1 and sum(most) == 40  # 16x24 pixels are more than one tile of 16x16
