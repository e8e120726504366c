"""What is written as the metadata of a known data set, its reader gives back; and never a frame of another scene."""

import json
from pathlib import Path

import pytest

from timeloom.data.hd_vg_130m import write_hd_vg_130m
from timeloom.data.hd_vila import write_hd_vila
from timeloom.data.listed_clip import ListedClip, clock
from timeloom.data.msr_vtt import write_msr_vtt
from timeloom.data.panda_70m import write_panda_70m
from timeloom.data.sources import SOURCES, SourceOptions
from timeloom.data.table import Scan
from timeloom.data.webvid import write_webvid

FPS = 30000 / 1001
CAPTIONS = ['A "red", car; it\'s fast', "Two\nlines, ünïcode 猫", "plain"]
SPANS = [("deep/a b.mp4", 0, 31), ("deep/a b.mp4", 31, 97), ("c'd.mp4", 64, 128)]
CLIPS = [
    ListedClip(
        key=f"clip_{number}",
        video=video,
        start_s=start / FPS,
        end_s=end / FPS,
        fps=FPS,
        caption=caption,
        label="cars" if number < 2 else "",
        file=f"files/aa/clip_{number}.mp4",
        similarity=0.25,
    )
    for number, ((video, start, end), caption) in enumerate(zip(SPANS, CAPTIONS, strict=True))
]


def read(name, path, videos, **options):
    source = SOURCES[name](
        SourceOptions(source=name, path=str(path), videos=str(videos), **options), Scan(probe_up_to=-1)
    )
    return source, [source[index] for index in range(len(source))]


@pytest.fixture
def videos(tmp_path):
    for name in (*{clip.video for clip in CLIPS}, *(clip.file for clip in CLIPS)):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"x")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("name", "write", "ending", "lost_frames"),
    [
        ("hd-vg-130m", write_hd_vg_130m, ".json", 3),
        ("hd-vila", write_hd_vila, ".jsonl", 0.07),
        ("panda-70m", write_panda_70m, ".csv", 0.07),
    ],
)
def test_spans_come_back_within_the_scene(tmp_path, videos, name, write, ending, lost_frames):
    path = tmp_path / f"metadata{ending}"
    write(path, iter(CLIPS))
    _, found = read(name, path, videos)
    assert [clip.caption for clip in found] == [caption.strip() for caption in CAPTIONS]
    for clip, listed in zip(found, CLIPS, strict=True):
        assert Path(clip.origin) == videos / listed.video
        start_s, end_s, _ = clip.identity()[-1]
        assert listed.start_s - 1e-6 <= start_s <= listed.start_s + lost_frames / FPS
        assert listed.end_s - lost_frames / FPS <= end_s <= listed.end_s + 1e-6


@pytest.mark.parametrize(
    ("name", "write", "ending"),
    [("webvid", lambda path, clips: write_webvid(path, clips()), ".csv"), ("msr-vtt", write_msr_vtt, ".json")],
)
def test_files_come_back(tmp_path, videos, name, write, ending):
    path = tmp_path / f"metadata{ending}"
    write(path, lambda: iter(CLIPS))
    _, found = read(name, path, videos)
    assert [(clip.caption, Path(clip.origin)) for clip in found] == [(c.caption, videos / c.file) for c in CLIPS]
    if name == "webvid":
        assert [clip.duration_s for clip in found] == pytest.approx([c.end_s - c.start_s for c in CLIPS], abs=1e-3)


def test_msr_vtt_has_categories_as_numbers(tmp_path):
    write_msr_vtt(tmp_path / "m.json", lambda: iter(CLIPS))
    written = json.loads((tmp_path / "m.json").read_text())
    assert [written["categories"][video["category"]] for video in written["videos"]] == ["cars", "cars", ""]


def test_no_clip_is_a_valid_file(tmp_path):
    write_hd_vg_130m(tmp_path / "a.json", [])
    write_msr_vtt(tmp_path / "b.json", lambda: iter(()))
    assert json.loads((tmp_path / "a.json").read_text()) == {}
    assert json.loads((tmp_path / "b.json").read_text())["videos"] == []


def test_hd_vila_counts_what_it_cannot_use(tmp_path, videos):
    lines = [
        {
            "video_id": "deep/a b",
            "clip": [{"clip_id": "x.0.mp4", "span": ["0:00:01.000", "0:00:02.500"], "caption": "one"}],
        },
        {"video_id": "deep/a b", "clip": [{"clip_id": "x.1.mp4", "span": ["soon"]}, {"span": ["0:01", "0:02"]}]},
        {"url": "u"},
        {"video_id": "c'd", "clip": [{"clip_id": "y.0.mp4", "span": ["0:00:00", "0:00:01"]}]},
    ]
    path = tmp_path / "hdvila_part0.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n")
    source, found = read("hd-vila", path, videos)
    assert [(clip.key, clip.caption, clip.identity()[-1][:2]) for clip in found] == [("x.0.mp4", "one", (1.0, 2.5))]
    assert source.ledger.found == 6
    assert source.ledger.reasons == {
        "clip without a clip_id and a span, or with a caption that is no text": 2,
        "line without a video_id and its clips": 2,
        "empty caption": 1,
    }


def test_clock():
    assert clock(0) == "00:00:00.000"
    assert clock(36_000_000 + 62_003) == "10:01:02.003"
