"""Cuts as PySceneDetect finds them, features that mean what they say, and files that are refused by name."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from timeloom.curate.difference import HsvConverter
from timeloom.curate.measure import OverlayCounter, bars
from timeloom.curate.scan import ClipOptions, ScanOptions, scan
from timeloom.curate.scene import Scan
from timeloom.errors import TimeloomError

from .conftest import CUTS, NUM_FRAMES, write_film


def write_images(path: Path, images: list[np.ndarray], rate: int = 30, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", **options})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def cut_frames(found: Scan) -> list[int]:
    return [round(found.seconds(scene.start_pts) * found.fps) for scene in found.scenes[1:]]


def f1(found: list[int], expected: list[int]) -> float:
    both = len(set(found) & set(expected))
    return 2 * both / max(1, len(found) + len(expected))


def test_hsv_is_opencvs_to_the_bit() -> None:
    cv2 = pytest.importorskip("cv2")
    red, green, blue = (
        plane.ravel() for plane in np.meshgrid(*[np.arange(0, 256, 3, dtype=np.uint8)] * 3, indexing="ij")
    )
    hsv = np.empty((3, len(red)), np.uint8)
    HsvConverter(len(red)).convert(red, green, blue, hsv)
    reference = cv2.cvtColor(np.stack([red, green, blue], -1)[None], cv2.COLOR_RGB2HSV)[0]
    assert np.array_equal(reference, hsv.T)


@pytest.mark.parametrize("detector", ["content", "adaptive", "pyscenedetect", "pyscenedetect-adaptive"])
def test_cuts_are_pyscenedetects_on_its_own_films(shared_data: Path, detector: str) -> None:
    if detector.startswith("py"):
        pytest.importorskip("scenedetect")
    theirs = "AdaptiveDetector" if "adaptive" in detector else "ContentDetector"
    for film in ("testvideo.mp4", "fades.mp4")[: 1 if detector.startswith("py") else 2]:
        expected = json.loads((shared_data / "scene_cuts" / f"{film}.{theirs}.default.json").read_text())["cuts"]
        assert cut_frames(scan(shared_data / "scene_cuts" / film, ScanOptions(detector=detector))) == expected


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_cuts_of_joined_clips(shared_data: Path, tmp_path: Path, detector: str) -> None:
    """Real clips, one after the other: the same cuts as PySceneDetect, and as many of the known ones."""
    scenedetect = pytest.importorskip("scenedetect")
    images: list[np.ndarray] = []
    known: list[int] = []
    for path in sorted((shared_data / "clips").rglob("*.mp4"))[::5]:
        known.append(len(images))
        with av.open(str(path)) as container:
            for frame, _ in zip(container.decode(video=0), range(30), strict=False):
                images.append(frame.to_ndarray(format="rgb24", width=256, height=144))
    joined = write_images(tmp_path / "joined.mp4", images, preset="veryfast")
    theirs = scenedetect.ContentDetector() if detector == "content" else scenedetect.AdaptiveDetector()
    reference = [start.frame_num for start, _ in scenedetect.detect(str(joined), theirs)[1:]]
    found = cut_frames(scan(joined, ScanOptions(detector=detector)))
    assert len(reference) > 20
    assert f1(found, reference) >= 0.99
    assert f1(found, known[1:]) >= f1(reference, known[1:]) - 1e-9


@pytest.mark.parametrize("detector", ["content", "pyscenedetect"])
def test_flashes_are_merged_as_there(tmp_path: Path, detector: str) -> None:
    """Clips that follow a late cut hold exactly their scene's frames; both detectors tell the same cuts."""
    scenedetect = pytest.importorskip("scenedetect")
    levels = [20] * 30 + [200] * 30 + [90, 240, 30, 200, 60] * 3 + [120] * 40 + [10] * 2 + [120] * 30
    images = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    film = write_images(tmp_path / "a.mp4", images)
    counts: list[int] = []

    def count(scene: object, content: bytes) -> None:
        import io

        with av.open(io.BytesIO(content)) as container:
            counts.append(sum(1 for _ in container.decode(video=0)))

    found = scan(film, ScanOptions(detector=detector, clips=ClipOptions(short_side=48)), count)
    reference = [s.frame_num for s, _ in scenedetect.detect(str(film), scenedetect.ContentDetector())[1:]]
    assert cut_frames(found) == reference and len(reference) >= 2
    assert counts == [scene.num_frames for scene in found.scenes]


def test_the_threshold_and_the_length_are_options(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4")
    assert cut_frames(scan(film, ScanOptions())) == list(CUTS)
    assert cut_frames(scan(film, ScanOptions(threshold=250))) == []
    # As there: the first cut counts, and those that follow it too fast are merged, here beyond the end.
    assert cut_frames(scan(film, ScanOptions(min_scene_frames=20))) == [CUTS[0]]


def test_clips_of_unwanted_length_are_not_given(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4")
    for limits, lengths in (({"max_duration_s": 0.66}, [19, 19]), ({"min_duration_s": 0.7}, [21, 21])):
        given: list[int] = []
        options = ScanOptions(clips=ClipOptions(short_side=64, **limits))
        scan(film, options, lambda scene, _, given=given: given.append(scene.num_frames))
        assert given == lengths


def moving(number: int) -> np.ndarray:
    image = np.full((72, 128, 3), 40, np.uint8)
    image[20:50, (4 * number) % 100 : (4 * number) % 100 + 20] = 220
    return image


def test_features_say_what_they_mean(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (72, 128, 3), dtype=np.uint8)
    boxed = np.zeros((72, 128, 3), np.uint8)
    boxed[9:63] = 150
    parts = {
        "moving": [moving(i) for i in range(20)],
        "still": [noise] * 20,
        "boxed": [boxed] * 20,
        "white": [np.full_like(noise, 250)] * 20,
    }
    film = write_images(tmp_path / "a.mp4", [image for images in parts.values() for image in images])
    moved, still, letterbox, white = scan(film, ScanOptions()).scenes
    assert moved.motion > 3 * still.motion and moved.static_share < 0.1 and white.static_share > 0.9
    assert still.sharpness > 5 * white.sharpness
    assert letterbox.letterbox_share == pytest.approx(0.25, abs=0.04) and still.letterbox_share == 0
    assert white.brightness > 240 > letterbox.brightness
    assert moved.cut_score == 0 and white.cut_score > 27


def test_bars_of_a_black_picture_are_none() -> None:
    assert bars([np.zeros((10, 10), np.uint8)]) == (0, 0, 0, 0)


def test_an_overlay_stays_while_scenes_change() -> None:
    rng = np.random.default_rng(0)
    size = (72, 128)
    plain, logo = OverlayCounter(size), OverlayCounter(size)
    for _ in range(10):
        coarse = rng.integers(40, 180, (9, 16), dtype=np.uint8)
        scene = np.kron(coarse, np.ones((8, 8), np.uint8))
        scene = np.roll(scene, rng.integers(0, 8, 2), axis=(0, 1))
        plain.add(scene, (0, 0, 0, 0))
        marked = scene.copy()
        marked[6:18:4, 100:120] = marked[6:18, 100:120:4] = 255
        logo.add(marked, (0, 0, 0, 0))
        logo.add(marked, (0, 0, 0, 0))  # the same scene again counts once
    assert logo.score() > 5 * plain.score() and logo.score() > 0.02
    assert np.isnan(OverlayCounter(size).score())


def test_one_frame_is_a_scene(tmp_path: Path) -> None:
    found = scan(write_images(tmp_path / "a.mp4", [moving(0)]), ScanOptions())
    (scene,) = found.scenes
    assert (scene.num_frames, scene.start_pts, scene.end_pts) == (1, found.first_pts, found.end_pts)
    assert found.duration_s == pytest.approx(1 / 30, abs=1e-3) and scene.motion == 0 and not found.variable_rate


def test_high_dynamic_range_is_told(tmp_path: Path) -> None:
    options = {"x264-params": "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
    found = scan(write_film(tmp_path / "a.mp4", pixel_format="yuv420p10le", options=options), ScanOptions())
    assert found.high_dynamic_range and any("high dynamic range" in warning for warning in found.warnings)
    assert found.num_frames == NUM_FRAMES


def test_damage_is_counted_and_passed_over(tmp_path: Path) -> None:
    from .conftest import damaged

    found = scan(damaged(tmp_path / "a.mp4"), ScanOptions())
    assert found.corrupt_frames and found.warnings
    assert sum(scene.corrupt_share > 0 for scene in found.scenes) == 1


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _half(path: Path) -> None:
    write_film(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _clocks(path: Path) -> None:
    """Two transport streams, one behind the other, as recorders leave them."""
    write_film(path)
    path.write_bytes(path.read_bytes() * 2)


def _picture(path: Path) -> None:
    from timeloom.data.write import write_video

    write_video(path, np.zeros((2, 16, 16, 3), np.uint8))


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("none.mp4", lambda path: None, "there is no such file"),
    ("empty.mp4", lambda path: path.touch(), "is empty"),
    ("folder.mp4", lambda path: path.mkdir(), "is a folder"),
    ("text.mp4", lambda path: path.write_text("no film\n" * 99), "is not a video that FFmpeg knows"),
    ("sound.mp4", _sound, "no video stream and sound"),
    ("half.mp4", _half, "moov.*cut short"),
    ("twice.ts", _clocks, r"its clock starts anew near \d"),
    ("moving.gif", _picture, "is a picture or an animation"),
]


@pytest.mark.parametrize(("name", "make", "what"), BAD, ids=[name for name, _, _ in BAD])
def test_what_cannot_be_scanned_is_refused_by_name(
    tmp_path: Path, name: str, make: Callable[[Path], object], what: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(TimeloomError, match=f"{name}.*{what}"):
        scan(tmp_path / name, ScanOptions())


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "a.mp4")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TimeloomError, match=r"a\.mp4: cannot be opened \(Permission denied\)"):
        scan(film, ScanOptions())


def test_records_travel(tmp_path: Path) -> None:
    import pickle

    found = scan(write_film(tmp_path / "a.mp4"), ScanOptions(image_side=64))
    assert pickle.loads(pickle.dumps(found)) == found or np.isnan(found.static_overlay)
    assert len(pickle.dumps(found)) < 20_000
    assert isinstance(found.time_base, Fraction) and all(type(scene.start_pts) is int for scene in found.scenes)
