import os
import re
import socket
import subprocess
import sys
import urllib.request

import pytest

from timeloom import cli, zoo
from timeloom.studio import command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "give --auth NAME"),
        (["--auth", "anna"], "needs a name and a password"),
        (["--auth", ":geheim"], "needs a name and a password"),
        (["--models", "digits-shfit"], "Did you mean 'digits-shift'?"),
        (["--browse", "gone"], "gone: there is no such folder"),
        (["--port", "70000"], "--port must be at most 65535"),
        (["--port", "-1"], "--port must be at least 0"),
        (["--max-frames", "0"], "--max-frames must be at least 1"),
        (["--host", "203.0.113.7", "--auth", "a:b"], "Cannot listen on 203.0.113.7, port 7860"),
    ],
)
def test_bad_input_is_one_sentence(words, told, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115
    assert cli.main(["studio", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


def test_a_port_in_use_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["studio", "--port", str(port)]) == 2
    assert f"Cannot listen on 127.0.0.1, port {port} (Address already in use)" in capsys.readouterr().err


def test_without_gradio_the_install_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "timeloom.studio.page", raising=False)
    assert cli.main(["studio", "--port", "0"]) == 2
    assert "pip install 'timeloom[studio]'" in capsys.readouterr().err


def test_visitors_see_names_not_paths(tmp_path):
    for path in ("a/model", "b/model", "c"):
        (tmp_path / path).mkdir(parents=True)
    paths = tuple(str(tmp_path / path) for path in ("a/model", "b/model", "c"))
    assert command._names((*paths, "digits-shift", "owner/name")) == {
        "model": paths[0],
        "b/model": paths[1],
        "c": paths[2],
        "digits-shift": "digits-shift",
        "name": "owner/name",
    }


def test_the_zoo_is_offered_by_default():
    assert "digits-shift" in zoo.generators()


@pytest.mark.parametrize(
    ("host", "own"),
    [(host, True) for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost")]
    + [(host, False) for host in ("0.0.0.0", "::", "example.com")],
)
def test_which_addresses_are_this_machines_own(host, own):
    assert command._is_loopback(host) is own


def test_the_password_is_asked_for_where_only_a_name_is_given(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command.getpass, "getpass", lambda prompt: "geheim")
    assert command._password(command.Options(auth="anna")) == "anna:geheim"
    assert command._password(command.Options(auth="anna:x:y")) == "anna:x:y"


def test_ended_by_the_system_it_leaves_nothing_behind(tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'timeloom[studio]'")
    process = subprocess.Popen(
        [sys.executable, "-m", "timeloom", "studio", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    address = re.findall(r"http://\S+", process.stdout.readline())[0]
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"Timeloom studio" in answer.read()
    assert list(tmp_path.glob("timeloom-studio-*"))
    process.terminate()
    assert "what visitors made is removed" in process.communicate(timeout=60)[1]
    assert list(tmp_path.glob("timeloom-studio-*")) == []
