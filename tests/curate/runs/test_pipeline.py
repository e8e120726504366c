"""Whole runs on small films: rows, forms of output, resume, parts, the report."""

import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from timeloom.cli import main
from timeloom.curate import stages
from timeloom.curate.engines import ProcessEngine
from timeloom.curate.listing import find_files
from timeloom.data import Window, read_video
from timeloom.data.sources import DataOptions, open_sources
from timeloom.errors import TimeloomError

from .conftest import OPEN, captioned, run


def contents(folder):
    """Every file of a run but its work and the report, which tells times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "work" not in path.relative_to(folder).parts and path.suffix != ".html"
    }


class Watched(ProcessEngine):
    """Remembers in which order it was given the sources."""

    def run(self, each, items, together=None):
        self.order = getattr(self, "order", None) or [item.path for item in items]
        return super().run(each, items, together)


def test_the_largest_sources_go_first_and_rows_stay_in_order(films):
    engine = Watched(0)
    _, ledger = run(films, engine=engine)
    sizes = {name: (films / "videos" / name).stat().st_size for name in engine.order}
    assert list(sizes) == sorted(sizes, key=sizes.get, reverse=True) != sorted(sizes)
    assert [row["source"] for row in ledger] == sorted(sizes)


def test_a_row_for_each_scene_with_its_exact_span(films, colours):
    clips, ledger = run(films)
    assert [(clip["source"], clip["num_frames"]) for clip in clips] == [
        *[("a.mp4", 20)] * 3,
        ("d.mp4", 20),
        *[("deep/b c.mp4", 20)] * 2,
    ]
    for clip, colour in zip(clips, [0, 1, 2, 5, 3, 4], strict=True):
        frames = read_video(films / "videos" / clip["source"], 20, None, clip["start_s"])
        assert np.abs(frames[[0, -1]][:, 5, -5].astype(int) - colours[colour]).max() < 12
        assert (
            (clip["end_pts"] - clip["start_pts"]) * clip["time_base_num"] / clip["time_base_den"]
            == clip["duration_s"]
            == 1
        )
    assert [(row["status"], row["clips"], row["kept"]) for row in ledger] == [
        ("done", 3, 0),
        ("done", 1, 1),
        ("done", 2, 0),
    ]
    assert [clip["reasons"] for clip in clips if not clip["kept"]] == [["no caption"]] * 5
    assert clips[3]["caption"] == "A magenta wall."


def test_a_caption_of_a_whole_file_is_not_given_to_its_several_clips(films):
    (films / "videos/a.txt").write_text("Three walls.")
    clips, _ = run(films)
    assert {clip["caption"] for clip in clips if clip["source"] == "a.mp4"} == {""}
    assert clips[0]["reasons"] == ["no caption: the file's own tells of several clips"]


@pytest.mark.parametrize("form", ["virtual", "shards", "files"])
def test_every_form_is_a_source_for_training(films, form, colours):
    clips, _ = run(films)
    rows, _ = run(films, captioned(films, clips), f"output.form={form}", "output.clips_per_shard=4", output=form)
    assert all(row["kept"] and row["caption"] for row in rows)
    data = DataOptions(
        source="curated", path=str(films / form), num_frames=4, fps=4, validation_clips=1, height=16, width=16
    )
    training, held_out = open_sources(data, seed=0)
    assert len(training) + len(held_out) == 6 - (0 if form == "shards" else sum_of_same_video(held_out, rows))
    colour_of = dict(zip([row["caption"] + row["source"] for row in rows], [0, 1, 2, 5, 3, 4], strict=True))
    for clip in (training[index] for index in range(len(training))):
        row = next(row for row in rows if row["clip_id"] in clip.key)
        assert clip.caption == row["caption"]
        frames = clip.draw(Window(4, 4, 16, 16), 0.0)
        seen = np.median(frames.reshape(-1, 3), axis=0)
        assert np.abs(seen - colours[colour_of[row["caption"] + row["source"]]]).max() < 30


def sum_of_same_video(held_out, rows):
    """Clips that are left out of training because a clip of their video is held out."""
    video = next(row["source"] for row in rows if row["clip_id"] in held_out[0].key)
    return sum(row["source"] == video for row in rows) - 1


def test_shards_hold_a_video_a_caption_and_facts(films):
    clips, _ = run(films)
    rows, _ = run(films, captioned(films, clips), "output.form=shards", "output.clips_per_shard=4", output="s")
    names = []
    for tar in sorted((films / "s/shards").iterdir()):
        with tarfile.open(tar) as archive:
            names += [(tar.name, member.name) for member in archive]
            assert json.load(archive.extractfile(archive.getnames()[2]))["num_frames"] == 20
    assert names == [
        (Path(row["file"]).name, f"{row['clip_id']}.{suffix}") for row in rows for suffix in ("mp4", "txt", "json")
    ]
    assert {row["file"] for row in rows} == {"shards/00000.tar", "shards/00001.tar"}


def test_equal_runs_give_equal_files_and_workers_do_not_matter(films):
    clips, _ = run(films)
    changes = (captioned(films, clips), "output.form=shards", "output.metadata=[hd-vg-130m, hd-vila, panda-70m]")
    run(films, *changes, output="one")
    run(films, *changes, output="two", engine=ProcessEngine(2))
    before = contents(films / "one")
    assert before == contents(films / "two")
    run(films, *changes, output="one")
    assert before == contents(films / "one")
    assert len(before) == 3 + 1 + 3


def test_what_is_known_is_not_scanned_again(films, monkeypatch):
    clips, _ = run(films)
    monkeypatch.setattr(stages, "scan", None)
    shutil.move(films / "videos/a.mp4", films / "videos/z.mp4")
    again, _ = run(films)
    assert sorted(clip["clip_id"] for clip in again) == sorted(clip["clip_id"] for clip in clips)


def test_killed_at_any_moment_the_same_command_goes_on(films):
    command = [sys.executable, "-m", "timeloom", "curate", "videos", "--recipe", "any-size", "--workers", "1"]
    command += ["--set", *OPEN, "output.form=shards", "--output"]
    code = main([*map(str, command[3:4]), str(films / "videos"), *command[5:], str(films / "whole")])
    assert code == 0
    scans = films / "killed/work/scans"
    killed = subprocess.Popen([*command, "killed"], cwd=films, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(scans.rglob("*.zip")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = {path: path.stat().st_mtime_ns for path in scans.rglob("*.zip")}
    assert done
    subprocess.run([*command, "killed"], cwd=films, check=True, capture_output=True)
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())
    assert contents(films / "killed") == contents(films / "whole")


def test_a_damaged_scan_is_made_again(films):
    clips, _ = run(films)
    kept = next((films / "out/work/scans").rglob("*.zip"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert run(films)[0] == clips


def test_parts_together_are_the_whole(films, make_film):
    shutil.copy(films / "videos/a.mp4", films / "videos/copy.mp4")
    clips, ledger = run(films)
    parts = [run(films, output="parts", layout=(part, 3)) for part in range(3)]
    for whole, pieces in ((clips, [part[0] for part in parts]), (ledger, [part[1] for part in parts])):
        merged = [row for piece in pieces for row in piece]
        assert sorted(map(str, merged)) == sorted(map(str, whole))
    assert sum("the same content as a.mp4" in row["why"] for row in ledger) == 1
    with pytest.raises(TimeloomError, match="holds a run in 3 parts"):
        run(films, output="parts")


def test_a_sample_by_label(films):
    (films / "labels.csv").write_text("file,label\na.mp4,walls\nd.mp4,walls\ndeep/b c.mp4,food\n")
    clips, ledger = run(films, f"sampling.labels={films}/labels.csv", "sampling.count=2", "sampling.shares=equal")
    assert {row["label"] for row in ledger} == {"walls", "food"}
    assert len(ledger) == 2
    assert {clip["label"] for clip in clips} == {"walls", "food"}


def test_filters_keep_the_reasons(films):
    clips, _ = run(films, "filters={duration_s: {max: 0.5}, height: {min: 720}}")
    assert all(clip["reasons"] == ["duration_s above 0.5", "height below 720"] for clip in clips)


def test_another_form_removes_the_clips_of_the_last(films):
    clips, _ = run(films)
    captions = captioned(films, clips)
    run(films, captions, "output.form=files")
    (films / "out/files/mine.mp4").write_bytes(b"x")
    assert len(list((films / "out/files").rglob("*.mp4"))) == 7
    run(films, captions, "output.form=shards")
    assert [path.name for path in (films / "out/files").rglob("*.mp4")] == ["mine.mp4"]


def test_the_output_inside_the_videos_is_no_source(films):
    run(films, output="videos/out")
    _, ledger = run(films, output="videos/out")
    assert len(ledger) == 3
    assert not [c for c in find_files(films / "videos", films / "videos/out") if c.path.startswith("out")]


def test_the_report_is_one_file_that_shows_the_sources(films, capsys):
    args = ["curate", str(films / "videos"), "--output", str(films / "out"), "--recipe", "any-size", "--workers", "0"]
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["expected"], told["done"], told["failed"], told["clips"], told["kept"]) == (3, 3, 0, 6, 1)
    assert told["at_full_size"]["core_hours"] > 0
    page = (films / "out/report.html").read_text()
    assert page.count("<figure") == page.count("data:image/jpeg;base64,") == 6
    assert "http" not in page.replace("http-equiv", "")
    assert "deep/b c.mp4" in page and "A magenta wall." in page and "no caption" in page


def test_pictures_of_the_report_are_pictures(films):
    from PIL import Image

    from timeloom.curate.report import THUMBNAIL_PX, _thumbnail

    target = io.BytesIO()
    Image.new("RGB", (160, 90), (9, 200, 9)).save(target, "JPEG")
    import base64

    image = Image.open(io.BytesIO(base64.b64decode(_thumbnail(target.getvalue()))))
    assert image.height == THUMBNAIL_PX and image.width == round(160 * THUMBNAIL_PX / 90)
