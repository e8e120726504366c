"""The protocol with stand-ins for the model: one draws the real clips, one mixes them up, one is stopped."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from timeloom import recipes
from timeloom.data.digits import ATTRIBUTES, combinations_of
from timeloom.errors import TimeloomError
from timeloom.evaluate.command import Options, check_options
from timeloom.evaluate.digits_command import evaluate, print_table
from timeloom.evaluate.digits_protocol import (
    ClipStore,
    Protocol,
    draw_real_clips,
    for_images,
    make_prompts,
    measure_judge,
)
from timeloom.evaluate.model import hash_model
from timeloom.evaluate.result_folder import write_result
from timeloom.train.recipe import load_recipe

PROTOCOL = Protocol(16, 8.0, 64, 64, 20, 4.0, "ddim", "fp32", "0" * 64, "0.1.0", "2.13.0")
PROMPTS = make_prompts(24)


class Painter:
    """A model that draws the clip of the prompt `shift` places further on."""

    def __init__(self, shift=0, stop_after=None):
        self.by_text = {prompt.text: index for index, prompt in enumerate(PROMPTS)}
        self.shift, self.stop_after, self.seeds = shift, stop_after, []

    def __call__(self, texts, *, seeds, num_frames, height, width, num_inference_steps, guidance_scale):
        if self.stop_after is not None and len(self.seeds) >= self.stop_after:
            raise KeyboardInterrupt
        assert (height, width, num_inference_steps, guidance_scale) == (64, 64, 20, 4.0)
        self.seeds += seeds
        chosen = [PROMPTS[(self.by_text[text] + self.shift) % len(PROMPTS)] for text in texts]
        return SimpleNamespace(frames=draw_real_clips(chosen, replace(PROTOCOL, num_frames=num_frames)))


def run(pipe, folder, judge, batch_size=8, prompts=PROMPTS, protocol=PROTOCOL, overwrite=False):
    store = ClipStore(folder, protocol, overwrite)
    return evaluate(pipe, prompts, protocol, store, judge, batch_size, Console(file=io.StringIO()))


def without_times(result):
    return {name: value for name, value in result.items() if name != "seconds"}


def test_every_fourth_prompt_is_a_combination_never_trained_on():
    assert [prompt.group for prompt in PROMPTS[:8]] == ["seen", "seen", "seen", "unseen"] * 2
    for prompt in PROMPTS:
        digit, *others = (prompt.attributes[name] for name in ATTRIBUTES)
        assert (int(digit), *others) in combinations_of(prompt.group)
    assert make_prompts(8) == PROMPTS[:8]
    assert make_prompts(8, seed=1) != PROMPTS[:8]


def test_results_are_those_of_the_protocol_that_they_were_measured_by():
    assert PROTOCOL.sha256 == "2a0d10cf2e5f63d50a23e64fa01df7a3245f05cea7bb67df8ee96ae7e4af0aad"
    assert replace(PROTOCOL, colours=("red",)).sha256 != PROTOCOL.sha256


@pytest.mark.parametrize("name", ["digits/image_style_a", "digits/image_style_b"])
def test_prompts_of_a_style_can_be_judged(judge, name, tmp_path):
    style = {option: tuple(names) for option, names in load_recipe(recipes.find(name)).data.style.items()}
    prompts, protocol = make_prompts(48, **style), replace(PROTOCOL, **style)
    assert {prompt.attributes["colour"] for prompt in prompts} == set(style["colours"])
    assert {prompt.attributes["background"] for prompt in prompts} == set(style["backgrounds"])
    assert [prompt.group for prompt in prompts[:4]] == ["seen", "seen", "seen", "unseen"]
    shares = measure_judge(judge, prompts, protocol)
    assert all(shares[metric]["all"].value >= 0.97 for metric in ATTRIBUTES)
    ClipStore(tmp_path, protocol).save(prompts[0], np.zeros((16, 64, 64, 3), np.uint8), 1.0)
    assert ClipStore(tmp_path, protocol).load(prompts[0]) is not None
    with pytest.raises(TimeloomError, match="colours, backgrounds"):
        ClipStore(tmp_path, PROTOCOL)


def test_a_model_that_draws_what_is_asked_is_right(judge, tmp_path):
    painter = Painter()
    result = run(painter, tmp_path, judge)
    assert painter.seeds == list(range(24))
    # The very clips that the judge was measured on, so its own mistakes are the only ones.
    assert result["model_right"] == result["judge"]
    assert all(result["model_right"][name]["all"]["value"] >= 0.95 for name in ATTRIBUTES)
    assert [result["model_right"]["all"][group]["n"] for group in ("all", "seen", "unseen")] == [24, 18, 6]
    assert (tmp_path / "clips.png").is_file()


def test_a_model_that_mixes_prompts_up_is_wrong(judge, tmp_path):
    result = run(Painter(shift=1), tmp_path, judge)
    assert result["model_right"]["all"]["all"]["value"] <= 0.1
    assert result["model_right"]["digit"]["all"]["value"] <= 0.4
    failure = result["failures"][0]
    assert failure["prompt"] == PROMPTS[failure["index"]].text
    for name, was in failure["wrong"].items():
        assert was["asked"] == PROMPTS[failure["index"]].attributes[name] != was["seen"]
    assert (tmp_path / "failures.png").is_file()


def test_images_are_judged_without_motion(judge, tmp_path):
    prompts, protocol = for_images(PROMPTS), replace(PROTOCOL, num_frames=1)
    assert [prompt.index for prompt in prompts] == [p.index for p in PROMPTS if p.attributes["motion"] != "spin"]
    assert 0 < len(prompts) < len(PROMPTS)
    painter = Painter()
    result = run(painter, tmp_path, judge, prompts=prompts, protocol=protocol)
    assert painter.seeds == [prompt.index for prompt in prompts]
    assert list(result["model_right"]) == ["digit", "colour", "background", "all"]
    assert result["model_right"] == result["judge"]  # the very frames that the judge was measured on
    assert result["model_right"]["all"]["all"]["value"] >= 0.95
    printed = io.StringIO()
    print_table({"model": "painter", **result}, Console(file=printed, width=160))
    assert "all three" in printed.getvalue() and "motion" not in printed.getvalue()
    with pytest.raises(TimeloomError, match="All prompts spin"):
        for_images([prompt for prompt in PROMPTS if prompt.attributes["motion"] == "spin"])


def test_marks_are_the_counts_prompt_by_prompt(judge, tmp_path):
    result = run(Painter(shift=1), tmp_path, judge)
    for metric, marks in result["marks"].items():
        assert marks.count("1") == result["model_right"][metric]["all"]["right"] and len(marks) == len(PROMPTS)
    wrong = {PROMPTS[place].index for place, mark in enumerate(result["marks"]["all"]) if mark == "0"}
    assert wrong == {failure["index"] for failure in result["failures"]}


def test_stopped_and_run_again_is_the_same(judge, tmp_path):
    whole = run(Painter(), tmp_path / "whole", judge)
    with pytest.raises(KeyboardInterrupt):
        run(Painter(stop_after=10), tmp_path / "parts", judge, batch_size=5)
    assert len(list((tmp_path / "parts" / "clips").glob("*.npz"))) == 10
    rest = Painter()
    again = run(rest, tmp_path / "parts", judge, batch_size=3)
    assert rest.seeds == list(range(10, 24))
    assert without_times(again) == without_times(whole)


def test_a_longer_run_goes_on_from_a_shorter(judge, tmp_path):
    run(Painter(), tmp_path, judge, prompts=PROMPTS[:4])
    rest = Painter()
    run(rest, tmp_path, judge)
    assert rest.seeds == list(range(4, 24))


def test_another_model_or_setting_is_refused(judge, tmp_path):
    ClipStore(tmp_path, PROTOCOL).save(PROMPTS[0], np.zeros((16, 64, 64, 3), np.uint8), 1.0)
    other = replace(PROTOCOL, weights_sha256="1" * 64, guidance_scale=2.0)
    with pytest.raises(TimeloomError, match="guidance_scale, weights_sha256"):
        ClipStore(tmp_path, other)
    assert ClipStore(tmp_path, PROTOCOL).load(PROMPTS[0]) is not None
    assert ClipStore(tmp_path, other, overwrite=True).load(PROMPTS[0]) is None


def test_clips_of_unknown_origin_are_refused(tmp_path):
    ClipStore(tmp_path, PROTOCOL).save(PROMPTS[0], np.zeros((16, 64, 64, 3), np.uint8), 1.0)
    (tmp_path / "protocol.json").unlink()
    with pytest.raises(TimeloomError, match="something else"):
        ClipStore(tmp_path, PROTOCOL)


def test_a_damaged_clip_is_named(tmp_path):
    store = ClipStore(tmp_path, PROTOCOL)
    store.path(PROMPTS[0]).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(TimeloomError, match=r"00000\.npz is damaged"):
        store.load(PROMPTS[0])


def test_result_file_and_table(judge, tmp_path):
    result = {"model": "painter", **run(Painter(), tmp_path, judge, prompts=PROMPTS[:4])}
    write_result(tmp_path, result)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["protocol"]["weights_sha256"] == "0" * 64
    assert not list(tmp_path.rglob("*.partial"))
    printed = io.StringIO()
    print_table(result, Console(file=printed, width=160))
    assert "all four" in printed.getvalue() and "never trained on, n = 1" in printed.getvalue()


def test_the_hash_of_a_model_knows_its_weights_and_not_its_card(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"weights")
    before = hash_model(tmp_path)
    (tmp_path / "README.md").write_text("card")
    assert hash_model(tmp_path) == before
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"other weights")
    assert hash_model(tmp_path) != before


@pytest.mark.parametrize(
    "options",
    [
        *(Options(num_prompts=0), Options(batch_size=0), Options(steps=0), Options(frames=0)),
        *(Options(seed=-1), Options(guidance=float("nan"))),
    ],
)
def test_bad_numbers(options):
    with pytest.raises(TimeloomError, match="must be"):
        check_options(options)
