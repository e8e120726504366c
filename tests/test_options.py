from dataclasses import dataclass
from typing import Literal

import pytest
import tyro

from timeloom.options import parse


@dataclass(frozen=True)
class Options:
    """Make a video."""

    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    """What the videos show."""
    # a remark for readers of the code
    guidance_scale: float = 7.5
    """Weight of the prompt, 1 to 20."""
    scheduler: Literal["ddim", "ddpm"] = "ddim"
    """Sampler."""
    overwrite: bool = False
    """Replace the file that exists."""


def test_defaults_and_given_values():
    assert parse(Options, [], prog="timeloom probe") == Options()
    words = ["a red seven", "a blue one", "--guidance-scale", "3", "--scheduler", "ddpm", "--overwrite"]
    assert parse(Options, words, prog="timeloom probe") == Options(("a red seven", "a blue one"), 3.0, "ddpm", True)


def test_help_is_made_of_the_docstrings(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], prog="timeloom probe", description="Make videos.")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for text in ("timeloom probe", "Make videos.", "Weight of the prompt", "--overwrite", "7.5"):
        assert text in out
    assert "a remark" not in out
    assert "--no-overwrite" not in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--guidence-scale", "3"], "--guidance-scale"),
        (["--scheduler", "dpm"], "ddpm"),
        (["--guidance-scale", "much"], "much"),
    ],
)
def test_bad_options_are_named_with_what_was_meant(capsys, words, named):
    with pytest.raises(SystemExit) as stop:
        parse(Options, words, prog="timeloom probe")
    assert stop.value.code == 2
    assert named in capsys.readouterr().err
