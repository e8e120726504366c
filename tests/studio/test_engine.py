import shutil

import numpy as np
import pytest

from timeloom import cli, zoo
from timeloom.data import read_metadata, read_video
from timeloom.errors import TimeloomError
from timeloom.studio.engine import ModelEngine
from timeloom.studio.jobs import Cancelled
from timeloom.studio.request import ClipRequest

REQUEST = ClipRequest("a red seven moves left", "small", seed=3, steps=2, frames=4)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(zoo.ZOO / "digits-shift", folder)
    return folder


@pytest.fixture(scope="module")
def engine(other):
    return ModelEngine({"small": "digits-shift", "other": str(other), "gone": "/no/such/model"}, "cpu")


def pass_by(step, steps, look):
    pass


def test_a_clip_is_the_one_that_the_command_makes(engine, tmp_path):
    seen = []
    clip = engine.make(REQUEST, tmp_path, "token", lambda step, steps, look: seen.append((step, steps, look().shape)))
    assert seen == [(1, 2, (64, 64, 3)), (2, 2, (64, 64, 3))]
    command = ["generate", REQUEST.prompt, "--seed", "3", "--steps", "2", "--frames", "4", "--device", "cpu", "--quiet"]
    assert cli.main([*command, "--output", str(tmp_path / "command.mp4")]) == 0
    theirs = read_metadata(tmp_path / "command.mp4")
    assert read_metadata(clip.file) == {**theirs, "model": "small"}
    assert np.array_equal(read_video(clip.file), read_video(tmp_path / "command.mp4"))
    assert (clip.width, clip.height, clip.settings["num_inference_steps"]) == (64, 64, "2")


def test_a_sampler_is_for_one_clip_alone(engine, tmp_path):
    own = engine.make(REQUEST, tmp_path, "a", pass_by).settings["sampler"]
    chosen = ClipRequest(**{**vars(REQUEST), "sampler": "unipc"})
    assert engine.make(chosen, tmp_path, "b", pass_by).settings["sampler"] == "unipc" != own
    assert engine.make(REQUEST, tmp_path, "c", pass_by).settings["sampler"] == own
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


def test_a_single_frame_is_an_image(engine, tmp_path):
    clip = engine.make(ClipRequest("a red seven", "small", steps=1, frames=1), tmp_path, "token", pass_by)
    assert clip.file.name == "token.png"


def test_an_upscaled_clip_is_the_one_that_the_command_makes(engine, tmp_path):
    clip = engine.make(ClipRequest(**{**vars(REQUEST), "upscale": True}), tmp_path, "large", pass_by)
    assert (clip.width, clip.height, clip.settings["upscaler"]) == (256, 256, "digits-upscaler")
    words = [REQUEST.prompt, "--seed", "3", "--steps", "2", "--frames", "4", "--device", "cpu", "--quiet", "--upscale"]
    assert cli.main(["generate", *words, "--output", str(tmp_path / "command.mp4")]) == 0
    assert np.array_equal(read_video(clip.file), read_video(tmp_path / "command.mp4"))
    assert engine.make(REQUEST, tmp_path, "small", pass_by).width == 64


def test_what_upscaling_may_reach_is_bounded(tmp_path):
    engine = ModelEngine({"small": "digits-shift"}, "cpu", max_upscaled_side=255)
    with pytest.raises(TimeloomError, match="Upscaled, a side would have 256 pixels, and at most 255 are made"):
        engine.make(ClipRequest(**{**vars(REQUEST), "upscale": True}), tmp_path, "large", pass_by)
    assert list(tmp_path.iterdir()) == []
    assert engine.make(REQUEST, tmp_path, "small", pass_by).width == 64


def test_one_model_is_in_memory_at_a_time(engine, tmp_path):
    import weakref

    engine.make(REQUEST, tmp_path, "a", pass_by)
    before = weakref.ref(engine._pipe.unet)
    engine.make(ClipRequest("a red seven", "other", steps=1, frames=1), tmp_path, "b", pass_by)
    assert engine.loaded == "other"
    assert before() is None


def test_a_model_that_is_not_there_is_told_and_the_next_is_loaded(engine, tmp_path):
    with pytest.raises(TimeloomError, match="no model folder"):
        engine.make(ClipRequest("a red seven", "gone"), tmp_path, "a", pass_by)
    engine.prepare("gone")
    assert engine.loaded is None
    engine.prepare("small")
    assert engine.loaded == "small"


def test_a_clip_that_is_cancelled_leaves_no_file(engine, tmp_path):
    def stop(step, steps, look):
        raise Cancelled

    with pytest.raises(Cancelled):
        engine.make(REQUEST, tmp_path, "token", stop)
    assert list(tmp_path.iterdir()) == []
    assert engine.make(REQUEST, tmp_path, "token", pass_by).file.is_file()


def test_what_a_model_cannot_make_is_told(engine, tmp_path):
    with pytest.raises(TimeloomError, match="multiple of 8"):
        engine.make(ClipRequest("a red seven", "small", height=20), tmp_path, "token", pass_by)
