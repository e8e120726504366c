"""Everything that can be wrong with a source: its row in the ledger says so, and the run goes on."""

import errno
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from timeloom.curate import stages
from timeloom.data.sources import DataOptions, open_sources
from timeloom.errors import TimeloomError

from .conftest import captioned, run


class TestBadInput:
    """Each gets its row in the ledger, and the run goes on."""

    def why(self, tmp_path, *changes):
        _, ledger = run(tmp_path, *changes)
        assert all((row["status"] == "failed") == bool(row["why"]) for row in ledger)
        return {row["source"]: row["why"] for row in ledger}

    def test_files_that_are_no_videos(self, films, make_film):
        videos = films / "videos"
        (videos / "empty.mp4").touch()
        (videos / "text.mp4").write_text("hello" * 100)
        (videos / "cut.mp4").write_bytes((videos / "a.mp4").read_bytes()[:2000])
        (videos / "picture.png").write_bytes(b"x")
        write_sound(videos / "sound.mp4")
        shutil.copy(videos / "a.mp4", videos / "same.mp4")
        make_film("one frame.mp4", (0,))
        why = self.why(films)
        assert why.pop("empty.mp4") == "is empty (0 bytes)"
        assert "not a video that FFmpeg knows" in why.pop("text.mp4")
        assert "cut short" in why.pop("cut.mp4")
        assert why.pop("picture.png") == "not a video by its name"
        assert "no video stream and sound" in why.pop("sound.mp4")
        assert why.pop("same.mp4") == "the same content as a.mp4"
        assert set(why.values()) == {""}

    def test_one_frame(self, films):
        from timeloom.data.write import write_video

        write_video(films / "videos/one.mp4", np.zeros((1, 48, 80, 3), np.uint8), fps=8)
        clips, _ = run(films)
        assert [clip["num_frames"] for clip in clips if clip["source"] == "one.mp4"] == [1]

    def test_ten_hours(self, films):
        from timeloom.data.write import write_video

        frames = np.zeros((36, 16, 16, 3), np.uint8)
        frames[18:] = 255
        write_video(films / "videos/long.mp4", frames, fps=0.001)
        clips, ledger = run(films)
        spans = [(clip["duration_s"], clip["num_frames"]) for clip in clips if clip["source"] == "long.mp4"]
        assert spans == [(18000.0, 18), (18000.0, 18)]
        assert next(row for row in ledger if row["source"] == "long.mp4")["duration_s"] == 36000

    def test_damage_in_the_middle_is_counted(self, films):
        path = films / "videos/a.mp4"
        with av.open(str(path)) as container:
            packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
        content = bytearray(path.read_bytes())
        for place, size in packets[25:28]:
            content[place + 6 : place + size] = bytes(byte ^ 0x5A for byte in content[place + 6 : place + size])
        path.write_bytes(content)
        clips, ledger = run(films, "filters={corrupt_share: {max: 0}}")
        assert ledger[0]["status"] == "done" and ledger[0]["corrupt_frames"] > 0
        assert any("corrupt_share above 0" in clip["reasons"] for clip in clips)

    def test_no_right_to_read(self, films, monkeypatch):
        opened = Path.open

        def refuse(self, *args, **options):
            if self.name == "a.mp4":
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return opened(self, *args, **options)

        monkeypatch.setattr(Path, "open", refuse)
        why = self.why(films)
        assert why["a.mp4"] == "cannot be read (Permission denied)"
        assert why["d.mp4"] == ""

    def test_names(self, films, make_film):
        odd = ["a b.mp4", 'it\'s "so".mp4', "two\nlines.mp4", "猫 žluť.mp4", "-dash.mp4", "a:b.mp4", "$HOME;`ls`.mp4"]
        for number, name in enumerate(odd):
            make_film(name, (number + 6,))
        clips, _ = run(films)
        captions = captioned(films, clips)
        for form in ("virtual", "files", "shards"):
            rows, _ = run(films, captions, f"output.form={form}", output=form)
            assert set(odd) <= {row["source"] for row in rows if row["kept"]}
            data = DataOptions(source="curated", path=str(films / form), num_frames=2, fps=4, validation_clips=1)
            assert open_sources(data, 0)[0].ledger.reasons.total() <= 2  # clips of a video that is held out

    def test_links_in_a_circle(self, films):
        (films / "videos/back").symlink_to(films / "videos")
        (films / "videos/self.mp4").symlink_to("self.mp4")
        why = self.why(films)
        assert why["back"] == "link that leads back to a folder above it"
        assert why["self.mp4"] == "link to a file that is not there"
        assert why["a.mp4"] == ""

    def test_a_file_that_nobody_thought_of(self, films, monkeypatch):
        scan = stages.scan

        def surprise(path, *rest):
            if path.name == "a.mp4":
                raise RuntimeError("surprise")
            return scan(path, *rest)

        monkeypatch.setattr(stages, "scan", surprise)
        assert self.why(films)["a.mp4"] == "unexpected RuntimeError: surprise"

    def test_a_full_disk(self, films, monkeypatch):
        whole_file = stages.Store.writing

        def full(self, source_id):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(stages.Store, "writing", full)
        assert set(self.why(films).values()) == {"cannot be kept (No space left on device)"}
        monkeypatch.setattr(stages.Store, "writing", whole_file)
        assert set(self.why(films).values()) == {""}

    def test_no_caption_model(self, films):
        why = self.why(films, "captions.model=no/such-model")
        assert why["d.mp4"] == ""  # has a sidecar
        assert "captions: the model no/such-model is not here, and nothing is downloaded" in why["a.mp4"]
        assert "no folder no/such-model" in why["a.mp4"]

    def test_a_source_that_is_gone_when_it_is_cut(self, films, monkeypatch):
        clips, _ = run(films)
        from timeloom.curate import outputs

        def gone(path, *rest):
            raise TimeloomError(f"{path}: there is no such file.")

        monkeypatch.setattr(outputs, "cut", gone)
        rows, ledger = run(films, captioned(films, clips), "output.form=files")
        assert {(row["kept"], row["file"], *row["reasons"]) for row in rows} == {
            (False, None, "cannot be cut: there is no such file")
        }
        assert {row["kept"] for row in ledger} == {0}

    def test_nothing_to_curate(self, tmp_path):
        (tmp_path / "videos").mkdir()
        with pytest.raises(TimeloomError, match="holds no video to curate"):
            run(tmp_path)


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
