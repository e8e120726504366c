"""Options and bad input; the whole command runs in tests/test_ablations.py."""

import subprocess
import sys

import pytest

from timeloom import cli
from timeloom.errors import TimeloomError
from timeloom.evaluate.papers.cases import Case, Sampling, cases_of
from timeloom.evaluate.papers.command import main
from timeloom.evaluate.papers.models import IMAGE_MODEL, Group


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--samplings", "ddpn:5"], "Did you mean 'ddpm'"),
        (["--samplings", "ddim"], "SAMPLER:STEPS, as ddpm:25, not 'ddim'"),
        (["--samplings", "ddim:0"], "SAMPLER:STEPS"),
        (["--num-prompts", "4"], "--num-prompts must be at least 8"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--name", "a/b"], "names a file"),
        (["--models", "nowhere"], "Unknown model 'nowhere'"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(words, complaint, tmp_path):
    with pytest.raises(TimeloomError, match=complaint):
        main([*words, "--page", str(tmp_path / "results.md"), "--output", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_help_needs_no_torch(capsys):
    code = (
        "import sys; from timeloom import cli\n"
        "try: cli.main(['evaluate', 'papers', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--samplings" in done.stdout


def test_every_case_of_every_kind_once():
    group = Group({IMAGE_MODEL: [], "shift": [], "swap": []})
    cases = cases_of(group, [Sampling("ddim", 5)])
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) == 1 + 2 * 4 + 1
    assert names[0] == "image model, images" and names[-1] == "shift, videos, ddim, 5 steps"
    assert Case("swap", "images", without=True) in cases
    assert cases_of(Group({IMAGE_MODEL: []}), [Sampling("ddim", 5)]) == [Case(IMAGE_MODEL, "images")]
    assert cli.VERBS["evaluate"].module == "timeloom.evaluate.command"
