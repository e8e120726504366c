import errno
import importlib.metadata
import subprocess
import sys
import types

import pytest

from timeloom import cli
from timeloom.errors import TimeloomError


def install_verb(monkeypatch, main):
    """Make `timeloom probe` run the function `main`."""
    monkeypatch.setitem(sys.modules, "probe_command", types.SimpleNamespace(main=main))
    monkeypatch.setitem(cli.VERBS, "probe", cli.Verb("probe_command", "a test"))


def raises(error):
    def main(args):
        raise error

    return main


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_names_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, verb in cli.VERBS.items():
        assert name in out
        assert verb.summary in out


def test_no_arguments_is_bad_input(capsys):
    assert cli.main([]) == 2
    assert "usage: timeloom" in capsys.readouterr().err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"timeloom {importlib.metadata.version('timeloom')}"


def test_help_imports_nothing_heavy():
    code = "import sys; from timeloom.cli import main; main(['--help']); print({'torch', 'tyro'} & set(sys.modules))"
    assert run_python(code).stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_help_of_a_verb_does_not_import_torch(verb):
    code = f"""
import sys
from timeloom.cli import main
try:
    code = main([{verb!r}, "--help"])
except SystemExit as stop:
    code = stop.code
print("code", code, "torch", "torch" in sys.modules)
"""
    result = run_python(code)
    assert f"timeloom {verb}" in result.stdout
    assert result.stdout.splitlines()[-1] == "code 0 torch False", result.stderr


def test_unknown_command_and_option_suggest_the_nearest(capsys):
    assert cli.main(["genrate"]) == 2
    assert "Did you mean 'generate'?" in capsys.readouterr().err
    assert cli.main(["--versoin"]) == 2
    assert "Did you mean '--version'?" in capsys.readouterr().err


def test_arguments_reach_the_command_and_its_code_comes_back(monkeypatch):
    seen = []
    install_verb(monkeypatch, lambda args: seen.extend(args) or 7)
    assert cli.main(["probe", "a", "--seed", "0", "--debug"]) == 7
    assert seen == ["a", "--seed", "0"]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (TimeloomError("There is no clip in x."), 2, "There is no clip in x."),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b.mp4"), 1, "Permission denied: /a/b.mp4"),
        (OSError(errno.ENOSPC, "No space left on device", "b.mp4"), 1, "The disk is full while writing b.mp4."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "The disk is full."),
    ],
)
def test_errors_of_the_user_and_the_machine_are_one_sentence(monkeypatch, capsys, error, code, sentence):
    install_verb(monkeypatch, raises(error))
    assert cli.main(["probe"]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"timeloom: error: {sentence}")
    assert err.count("\n") == 1


def test_debug_keeps_the_traceback(monkeypatch):
    install_verb(monkeypatch, raises(TimeloomError("no")))
    with pytest.raises(TimeloomError):
        cli.main(["--debug", "probe"])
    monkeypatch.setenv("TIMELOOM_DEBUG", "1")
    with pytest.raises(TimeloomError):
        cli.main(["probe"])


def test_errors_of_our_own_are_not_hidden(monkeypatch):
    install_verb(monkeypatch, raises(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["probe"])


def test_interrupt(monkeypatch, capsys):
    install_verb(monkeypatch, raises(KeyboardInterrupt()))
    assert cli.main(["probe"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_interrupt_while_a_class_is_made(monkeypatch, capsys):
    class Interrupts:
        def __set_name__(self, owner, name):
            raise KeyboardInterrupt

    install_verb(monkeypatch, lambda args: type("Name", (), {"member": Interrupts()}))
    assert cli.main(["probe"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_torchvision_that_does_not_fit_is_named(monkeypatch, capsys):
    def main(args):
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as cause:
            raise ImportError("Failed to import transformers.models.clip") from cause

    install_verb(monkeypatch, main)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError):
        cli.main(["probe"])
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: object())
    assert cli.main(["probe"]) == 1
    assert "pip uninstall torchvision" in capsys.readouterr().err


def test_reader_that_leaves_is_no_error():
    code = """
import sys, types
from timeloom import cli
def main(args):
    for _ in range(100_000):
        print("a line")
    return 0
sys.modules["probe_command"] = types.SimpleNamespace(main=main)
cli.VERBS["probe"] = cli.Verb("probe_command", "")
sys.exit(cli.main(["probe"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_python_dash_m():
    result = subprocess.run([sys.executable, "-m", "timeloom", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("timeloom ")
