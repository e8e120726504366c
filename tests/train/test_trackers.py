import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timeloom.errors import TimeloomError
from timeloom.train.log import Log


class FakePackage:
    """The three calls that wandb and trackio share, by their documented names."""

    def __init__(self, broken: str = "") -> None:
        self.calls: list[tuple[str, Any]] = []
        self.broken = broken

    def init(self, *, project, name=None, config=None, resume=None, **own):  # type: ignore[no-untyped-def]
        self._do("init", {"project": project, "name": name, "config": config, "resume": resume, **own})

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        self._do("log", (data, step))

    def finish(self) -> None:
        self._do("finish", None)

    def _do(self, call: str, what: Any) -> None:
        if call == self.broken:
            raise ConnectionError("no network")
        self.calls.append((call, what))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(wandb=FakePackage(), trackio=FakePackage())
    for name, package in vars(found).items():
        monkeypatch.setitem(sys.modules, name, package)
    return found


def test_a_run_is_told_to_every_tracker_and_goes_on_under_its_name(packages: SimpleNamespace, tmp_path: Path) -> None:
    for samples in (4, 8):
        log = Log(tmp_path, True, ["wandb", "trackio"], {"seed": 1})
        log.write(samples, loss=0.5)
        log.close()
    for package in (packages.wandb, packages.trackio):
        assert [call for call, _ in package.calls] == ["init", "log", "finish"] * 2
        assert [what for call, what in package.calls if call == "log"] == [({"loss": 0.5}, 4), ({"loss": 0.5}, 8)]
        first, second = (what for call, what in package.calls if call == "init")
        assert first == second
        assert first["config"] == {"seed": 1} and first["resume"] == "allow"
        assert first["name"].startswith(tmp_path.name)
    assert packages.wandb.calls[0][1]["id"] == packages.trackio.calls[0][1]["name"]
    assert packages.wandb.calls[0][1]["dir"] == str(tmp_path)


def test_two_runs_in_folders_of_one_name_are_two(packages: SimpleNamespace, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        Log(tmp_path / parent / "run", True, ["trackio"])
    first, second = (what["name"] for _, what in packages.trackio.calls)
    assert first != second


@pytest.mark.parametrize("broken", ["init", "log"])
def test_a_tracker_that_fails_stops_nothing(
    packages: SimpleNamespace, tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    packages.wandb.broken = broken
    log = Log(tmp_path, True, ["wandb", "trackio"])
    for samples in (4, 8):
        log.write(samples, loss=0.5)
    log.close()
    assert len((tmp_path / "stats.jsonl").read_text().splitlines()) == 2
    assert [call for call, _ in packages.trackio.calls] == ["init", "log", "log", "finish"]
    assert capsys.readouterr().err.count("wandb is left out") == 1


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TimeloomError, match=r"pip install 'timeloom\[wandb\]'"):
        Log(tmp_path, True, ["wandb"])


def test_other_processes_tell_nobody(packages: SimpleNamespace, tmp_path: Path) -> None:
    log = Log(tmp_path / "run", False, ["wandb"])
    log.write(4, loss=0.5)
    log.close()
    assert packages.wandb.calls == []
    assert not (tmp_path / "run").exists()


def test_what_was_logged_after_a_checkpoint_is_forgotten(tmp_path: Path) -> None:
    log = Log(tmp_path, True)
    for samples in (4, 8, 12):
        log.write(samples, loss=1.0)
    log.rewind(8)
    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["samples"] for line in lines] == [4, 8]
