import pytest

from timeloom.errors import TimeloomError
from timeloom.generate.schedulers import SCHEDULERS
from timeloom.studio.request import (
    SAMPLERS,
    ClipRequest,
    Limits,
    form_values,
    read_comparison,
    read_request,
)

LIMITS = Limits(max_prompt=20, max_frames=8, max_side=64, max_steps=10, max_compared=4)
MODELS = ["digits-shift", "other"]
LEAST = {"prompt": "a red seven", "model": "other"}


def test_the_samplers_are_those_of_the_command():
    assert tuple(SCHEDULERS) == SAMPLERS


def test_blank_means_the_models_own():
    blanks = dict.fromkeys(("negative_prompt", "seed", "steps", "guidance", "sampler", "frames", "height", "width"), "")
    assert read_request({**LEAST, **blanks}, MODELS, LIMITS) == ClipRequest("a red seven", "other")
    assert read_request({**LEAST, **dict.fromkeys(blanks)}, MODELS, LIMITS) == ClipRequest("a red seven", "other")


def test_a_form_and_its_request_are_the_same_thing():
    request = ClipRequest("a red seven", "other", "blue", 5, 4, 2.5, "ddim", 8, 32, 64, True)
    assert read_request(form_values(request), MODELS, LIMITS) == request


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": None}, "prompt is empty"),
        ({"prompt": "x" * 21}, "21 characters"),
        ({"prompt": ["a"]}, "must be text"),
        ({"negative_prompt": "x" * 21}, "negative prompt has 21"),
        ({"model": ""}, "Choose a model"),
        ({"model": "../../etc/passwd"}, "Unknown model '../../etc/passwd'"),
        ({"model": ["other"]}, "Unknown model"),
        ({"sampler": "$(reboot)"}, "Unknown sampler"),
        ({"seed": -1}, "from 0"),
        ({"seed": 2**53}, "from 0"),
        ({"seed": "seven"}, "must be a number, not 'seven'"),
        ({"seed": True}, "must be a number"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": {}}, "must be a number"),
        ({"steps": 0}, "from 1 to 10"),
        ({"steps": 11}, "from 1 to 10"),
        ({"frames": 9}, "from 1 to 8"),
        ({"frames": 10**400}, "must be a number"),
        ({"height": 65}, "height must be from 8 to 64"),
        ({"width": 10_000}, "width must be from 8 to 64"),
        ({"guidance": "nan"}, "guidance must be a number"),
        ({"guidance": 101}, "from 0 to 100"),
    ],
)
def test_what_is_out_of_bounds_is_named(values, words):
    with pytest.raises(TimeloomError, match=words.replace("$(", r"\$\(")):
        read_request({**LEAST, **values}, MODELS, LIMITS)


def test_a_comparison_is_every_combination_with_what_differs():
    values = {**LEAST, "model": MODELS, "seed": "3, 7", "steps": "4", "guidance": ""}
    compared = read_comparison({**values, "upscale": True}, MODELS, LIMITS)
    assert all(request.upscale for _, request in compared)
    assert [label for label, _ in compared] == [
        "digits-shift, seed 3", "digits-shift, seed 7", "other, seed 3", "other, seed 7",
    ]  # fmt: skip
    assert {(request.steps, request.guidance) for _, request in compared} == {(4, None)}


def test_what_is_given_twice_is_compared_once():
    assert len(read_comparison({**LEAST, "model": ["other"], "seed": "1, 1, 1,"}, MODELS, LIMITS)) == 1


def test_a_comparison_is_bounded_and_each_of_its_clips_checked():
    with pytest.raises(TimeloomError, match=r"makes 6 clips \(2 model × 3 seed\), and at most 4"):
        read_comparison({**LEAST, "model": MODELS, "seed": "1,2,3"}, MODELS, LIMITS)
    with pytest.raises(TimeloomError, match="steps must be from 1 to 10, not 50"):
        read_comparison({**LEAST, "steps": "5, 50"}, MODELS, LIMITS)
    with pytest.raises(TimeloomError, match="Choose a model"):
        read_comparison({**LEAST, "model": []}, MODELS, LIMITS)
    with pytest.raises(TimeloomError, match="makes 1000000 clips"):
        read_comparison(
            {**LEAST, "seed": ",".join(map(str, range(1000))), "steps": ",".join(map(str, range(1000)))}, MODELS, LIMITS
        )
