"""The first and last frame of every clip are right, whatever the film and the form of the clip."""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from timeloom.curate.cut import CutOptions, cut
from timeloom.curate.scan import ClipOptions, ScanOptions, scan
from timeloom.curate.scene import Scan, Scene
from timeloom.data import Window
from timeloom.data.movie import Packed
from timeloom.data.span import draw_span
from timeloom.data.video import probe_video, read_video

from .conftest import Film, numbers

Scanned = tuple[Film, Scan, dict[int, bytes]]


@pytest.fixture(scope="module")
def scanned(film: Film) -> Scanned:
    clips: dict[int, bytes] = {}
    found = scan(
        film.path,
        ScanOptions(clips=ClipOptions(short_side=64)),
        lambda scene, content: clips.update({scene.start_pts: content}),
    )
    return film, found, clips


def scenes(scanned: Scanned) -> Iterator[tuple[Scene, range]]:
    """Scenes with the numbers that they must show."""
    film, found, _ = scanned
    assert len(found.scenes) == len(film.scenes)
    for scene, expected in zip(found.scenes, film.scenes, strict=True):
        if film.exact or not scene.corrupt_share:
            yield scene, expected


def test_scenes_are_found_without_gaps(scanned: Scanned) -> None:
    film, found, _ = scanned
    assert found.scenes[0].start_pts == found.first_pts and found.scenes[-1].end_pts == found.end_pts
    assert all(a.end_pts == b.start_pts for a, b in zip(found.scenes, found.scenes[1:], strict=False))
    checked = list(scenes(scanned))
    assert [scene.num_frames for scene, _ in checked] == [len(expected) for _, expected in checked]
    assert len(checked) >= (len(film.scenes) if film.exact else 3)
    assert sum(scene.num_frames for scene in found.scenes) == found.num_frames
    assert (found.corrupt_frames == 0) == film.exact


def test_central_frames_are_the_middle(scanned: Scanned) -> None:
    for scene, expected in scenes(scanned):
        (number,) = numbers([np.asarray(Image.open(io.BytesIO(scene.central_jpeg)))])
        assert abs(number - (expected[0] + expected[-1]) / 2) <= 1 + len(expected) / 24
        assert scene.start_pts <= scene.central_pts < scene.end_pts


def test_virtual_clips(scanned: Scanned) -> None:
    film, found, _ = scanned
    for scene, expected in scenes(scanned):
        start_s, end_s = found.seconds(scene.start_pts), found.seconds(scene.end_pts)
        frames = read_video(film.path, scene.num_frames, start_s=start_s)
        assert numbers(frames) == list(expected)
        for place, edge in ((0.0, expected[0]), (1.0, expected[-1]))[scene.start_pts == found.first_pts :]:
            window = Window(num_frames=8, fps=found.fps, height=found.height, width=found.width)
            shown = numbers(draw_span(film.path, start_s, end_s, "drop", window, place))
            assert set(shown) <= set(expected)
            assert abs(edge - (shown[-1] if place else shown[0])) <= found.variable_rate


@pytest.mark.parametrize("method", ["smart", "encode"])
def test_files(scanned: Scanned, tmp_path: Path, method: str) -> None:
    film, found, _ = scanned
    wanted = [(scene, tmp_path / f"{scene.start_pts}.mp4") for scene, _ in scenes(scanned)]
    cuts = list(cut(film.path, found, wanted, CutOptions(method=method, crf=8)))
    for made, (scene, expected) in zip(cuts, scenes(scanned), strict=True):
        frames = read_video(made.path)
        assert numbers(frames) == list(expected)
        assert (made.num_frames, made.size) == (len(expected), made.path.stat().st_size)
        info = probe_video(made.path)
        assert (info.width, info.height, info.num_frames) == (found.width, found.height, len(expected))
        length_s = float((scene.end_pts - scene.start_pts) * found.time_base)
        assert info.duration_s == pytest.approx(length_s, abs=0.06 if found.variable_rate else 0.002)
        for place in (len(expected) // 2, len(expected) - 1):  # jumps across the joint, after the head has been read
            start_s = found.seconds(_starts(film.path, scene, found)[place]) - found.seconds(scene.start_pts)
            assert numbers(read_video(made.path, 1, start_s=start_s)) == [expected[place]]
    assert not list(tmp_path.glob("*.part"))
    if method == "encode":
        assert all(made.method == "encode" and made.encoded_frames == made.num_frames for made in cuts)
    else:
        assert all((made.method == "copy") == (made.encoded_frames == 0) for made in cuts)


def _starts(path: Path, scene: Scene, found: Scan) -> list[int]:
    """The pts of a scene's frames."""
    with av.open(str(path)) as container:
        packets = [p.pts for p in container.demux(video=0) if p.size and p.pts is not None and not p.is_discard]
    inside = sorted(p for p in packets if scene.start_pts <= p < scene.end_pts)
    if len(inside) != scene.num_frames:
        step = (scene.end_pts - scene.start_pts) // scene.num_frames
        inside = [scene.start_pts + i * step for i in range(scene.num_frames)]
    return inside


def test_clips_at_training_size_from_the_same_pass(scanned: Scanned) -> None:
    _, _, clips = scanned
    for scene, expected in scenes(scanned):
        frames = read_video(Packed(Path("clip.mp4"), clips[scene.start_pts]))
        assert numbers(frames) == list(expected)
        assert frames.shape[1] == 64


def test_what_is_said_of_the_file(scanned: Scanned, request: pytest.FixtureRequest) -> None:
    film, found, _ = scanned
    kind = request.node.callspec.params["film"]
    assert found.variable_rate == (kind == "variable rate")
    assert found.rotation == (90 if kind == "rotated" else 0)
    assert found.interlaced == (kind == "interlaced")
    assert (found.width, found.height) == ((144, 64) if kind == "wide pixels" else (96, 64))
    assert (found.first_pts > 0) == (kind in ("late", "late stream"))
    assert found.duration_s == pytest.approx(probe_video(film.path).duration_s, abs=0.04)
