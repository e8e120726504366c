import errno
import os
import subprocess
import sys

import av
import numpy as np
import pytest

from timeloom.data import probe_video, read_metadata, read_video, write_video
from timeloom.errors import TimeloomError
from timeloom.study import command
from timeloom.study.clips import common_format, destroy, read_clip
from timeloom.study.design import MEDIA, read_study
from timeloom.study.questions import find_questions
from timeloom.study.store import Store

from .conftest import PROMPTS, answer_all, ask, build, draw_videos, read_json


def test_every_comparison_and_prompt_once(made):
    study = read_study(made)
    pairs = [pair for pair in study.pairs if not pair.attention]
    assert len(pairs) == 12 and len({(pair.systems, pair.prompt) for pair in pairs}) == 12
    assert study.comparisons == [(0, 1), (0, 2), (1, 2)]
    assert [pair.attention for pair in study.pairs].count(True) == 1 and study.pairs[-1].attention
    assert sorted(study.prompts) == sorted(PROMPTS)


def test_a_reference_and_a_sample(tmp_path):
    study = build(tmp_path / "study", tmp_path, reference="beta", sample=2, seed=3)
    assert study.comparisons == [(1, 0), (1, 2)]
    assert len(study.pairs) == 4 + 1
    again = build(tmp_path / "again", tmp_path, reference="beta", sample=2, seed=3)
    assert again.pairs == study.pairs
    other = build(tmp_path / "other", tmp_path, reference="beta", sample=2, seed=4)
    assert other.pairs != study.pairs
    with pytest.raises(TimeloomError, match="Did you mean 'beta'"):
        build(tmp_path / "wrong", tmp_path, reference="betta")


def test_files_tell_nothing_but_their_pictures(tmp_path):
    """Systems with other sizes, rates, lengths and metadata give files that differ in their pictures alone."""
    draw_videos(tmp_path / "alpha", ["x"], 0, frames=4, size=32, fps=4)
    draw_videos(tmp_path / "beta", ["x"], 1, frames=20, size=48, fps=12)
    study = build(tmp_path / "study", tmp_path, names=("alpha", "beta"))
    files = sorted((tmp_path / "study" / MEDIA).iterdir())
    assert {file.stem for file in files} == study.clips and len(files) == 3
    infos = {(info.width, info.height, info.fps, info.num_frames, info.codec) for info in map(probe_video, files)}
    assert infos == {(48, 48, 12.0, 12, "h264")}
    assert all("x" not in read_metadata(file).values() for file in files)
    assert len({tuple(read_metadata(file).items()) for file in files}) == 1
    assert len({file.stat().st_mtime for file in files}) == 1
    contents = b"".join(file.read_bytes() for file in files)
    assert b"alpha" not in contents and b"beta" not in contents


def test_clips_that_are_the_same_become_the_same_file(tmp_path):
    draw_videos(tmp_path / "alpha", ["x"], 0)
    draw_videos(tmp_path / "beta", ["x"], 0)
    study = build(tmp_path / "study", tmp_path, names=("alpha", "beta"), attention=0)
    assert len(study.clips) == 1


def test_another_shape_is_fitted_whole_and_a_pixel_more_is_no_shape(tmp_path):
    frames = np.full((2, 32, 64, 3), 200, dtype=np.uint8)
    write_video(tmp_path / "wide.mp4", frames, 8)
    write_video(tmp_path / "tall.mp4", np.full((2, 64, 64, 3), 200, dtype=np.uint8), 8)
    write_video(tmp_path / "near.mp4", np.full((2, 64, 66, 3), 200, dtype=np.uint8), 8)
    shape = common_format([tmp_path / "wide.mp4", tmp_path / "tall.mp4"])
    wide = read_clip(tmp_path / "wide.mp4", shape)
    assert wide.shape == (2, 64, 64, 3)
    assert (wide[:, :14] < 20).all() and (wide[:, 18:46] > 180).all() and (wide[:, 50:] < 20).all()
    assert (read_clip(tmp_path / "near.mp4", shape) > 180).all()


def test_rates_have_a_common_one():
    from timeloom.study.clips import _common_rate

    assert _common_rate([8, 12]) == 24 and _common_rate([8, 8]) == 8 and _common_rate([24, 30]) == 30
    assert _common_rate([29.97, 8]) == 29.97 and _common_rate([120, 8]) == 60


def test_a_destroyed_clip_is_worse_and_moves_no_more_in_order(tmp_path):
    frames = read_video(draw_videos(tmp_path, ["x"], 0, frames=8) / "000.mp4")
    spoilt = destroy(frames, 0)
    assert spoilt.shape == frames.shape and spoilt.dtype == np.uint8
    assert np.abs(spoilt.astype(int) - frames).mean() > 20
    assert (destroy(frames, 0) == spoilt).all()


def write_silence(path):
    """A film of sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)


def write_no_frame(path):
    """A film with a track of pictures, and none in it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


def test_unplayable_files_are_all_named(tmp_path):
    build(tmp_path / "fine", tmp_path)
    (tmp_path / "alpha" / "001.mp4").write_bytes(b"")
    (tmp_path / "beta" / "002.mp4").write_bytes(b"no video at all" * 10)
    write_silence(tmp_path / "gamma" / "000.mp4")
    write_no_frame(tmp_path / "gamma" / "003.mp4")
    for folder in ("alpha", "beta", "gamma"):
        rows = "".join(f'{index:03d}.mp4,"{prompt}"\n' for index, prompt in enumerate(PROMPTS))
        (tmp_path / folder / "captions.csv").write_text(f"file,caption\n{rows}")
    with pytest.raises(TimeloomError, match=r"(?s)001\.mp4: is empty \(0 bytes\).*002\.mp4") as error:
        build(tmp_path / "study", tmp_path)
    said = str(error.value)
    assert "Traceback" not in said
    assert all(str(tmp_path / "gamma" / name) in said for name in ("000.mp4", "003.mp4"))
    assert not (tmp_path / "study").exists() and not list(tmp_path.glob("*.part"))


def test_a_study_with_votes_is_never_replaced(folder, tmp_path):
    systems = [f"{name}={tmp_path / name}" for name in ("alpha", "beta")]
    for seed, name in enumerate(("alpha", "beta")):
        draw_videos(tmp_path / name, PROMPTS, seed)
    words = ["create", str(folder), "--systems", *systems, "--attention", "0"]
    with pytest.raises(TimeloomError, match="Use --overwrite"):
        command.main(words)
    assert command.main([*words, "--overwrite", "--json"]) == 0
    study = read_study(folder)
    assert [system.name for system in study.systems] == ["alpha", "beta"]
    with Store(folder, study) as store:
        token = ask(store, lambda desk: desk.links()[0][1])
        answer_all(store, token, lambda left, right, question: "left")
    with pytest.raises(TimeloomError, match="has 8 votes and is kept"):
        command.main([*words, "--overwrite"])
    assert read_study(folder) == study


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(TimeloomError, match="is no study"):
        build(tmp_path / "mine", tmp_path)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        draw_videos(tmp_path / name, PROMPTS, seed)
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 3:  # in the middle
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("timeloom.data.whole_file.os.fsync", full)
    with pytest.raises(TimeloomError, match=r"cannot be written \(No space left on device\)"):
        build(tmp_path / "study", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha", "beta", "gamma"]


def test_changed_clips_and_designs_are_noticed(folder):
    clip = next((folder / MEDIA).iterdir())
    content = clip.read_bytes()
    clip.write_bytes(content[:-1] + b"x")
    with pytest.raises(TimeloomError, match="is changed"):
        read_study(folder)
    clip.unlink()
    with pytest.raises(TimeloomError, match="is missing"):
        read_study(folder)
    clip.write_bytes(content)
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text.replace('"raters_per_pair"', '"raters_a_pair"'))
    with pytest.raises(TimeloomError, match="raters_per_pair"):
        read_study(folder)
    (folder / "study.json").write_text(text[:50])
    with pytest.raises(TimeloomError, match="is not JSON"):
        read_study(folder)
    (folder / "study.json").unlink()
    with pytest.raises(TimeloomError, match="is no study"):
        read_study(folder)


def test_clips_in_a_design_cannot_leave_the_folder(folder):
    raw = read_json(folder / "study.json")
    clip = raw["pairs"][0]["clips"][0]
    text = (folder / "study.json").read_text().replace(clip, "../../etc/passwd")
    (folder / "study.json").write_text(text)
    with pytest.raises(TimeloomError, match="clips"):
        read_study(folder)


def test_own_questions(tmp_path):
    path = tmp_path / "questions.yaml"
    path.write_text("questions:\n  - {name: smooth, text: 'Which moves smoother?'}\n")
    assert find_questions(str(path))[0].name == "smooth" and not find_questions(str(path))[0].show_prompt
    path.write_text("questions:\n  - {name: smooth, txt: 'Which moves smoother?'}\n")
    with pytest.raises(TimeloomError, match=r"questions\.0\.text: Field required"):
        find_questions(str(path))
    path.write_text("questions:\n  - {name: a, text: b}\n  - {name: a, text: c}\n")
    with pytest.raises(TimeloomError, match="same name"):
        find_questions(str(path))
    with pytest.raises(TimeloomError, match="Did you mean 'videofactory'"):
        find_questions("videofactry")


def test_a_question_that_shows_prompts_needs_them(tmp_path):
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        draw_videos(tmp_path / name, ["", ""], seed)
    with pytest.raises(TimeloomError, match="'faithfulness' shows the prompt, and 2 of 2 are not known"):
        build(tmp_path / "study", tmp_path)
    study = build(tmp_path / "study", tmp_path, questions=find_questions("latent-shift")[:1])
    assert study.prompts == (None, None)


def test_the_command_says_what_it_made(made, tmp_path, capsys):
    source = made.parent
    words = ["create", str(tmp_path / "s"), "--systems", f"a={source / 'alpha'}", f"b={source / 'beta'}"]
    assert command.main([*words, "--parameters", "a=1B"]) == 0
    said = capsys.readouterr().out
    assert "4 pairs of 4 prompts, 3 attention pairs; 40 votes wanted, by 5 raters a pair; 7 raters' links." in said
    for words in (["--raters-per-pair", "0"], ["--sample", "0"]):
        with pytest.raises(TimeloomError, match="at least 1, not 0"):
            command.main(["create", str(tmp_path / "t"), "--systems", "a", "b", *words])
    with pytest.raises(TimeloomError, match="Did you mean 'create'"):
        command.main(["creat"])


def test_help_imports_no_torch(capsys):
    for words in (["create", "--help"], ["serve", "--help"], ["report", "--help"]):
        with pytest.raises(SystemExit):
            command.main(words)
    assert "seconds" in capsys.readouterr().out
    rooms = "timeloom.study.create, timeloom.study.server, timeloom.study.report_files"
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
