import importlib
import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from timeloom.curate.engines import Died, ProcessEngine, make_engine
from timeloom.errors import TimeloomError

ITEMS = list(range(23))


@pytest.fixture(autouse=True)
def functions(monkeypatch):
    """Functions that worker processes can import: they get our sys.path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("worker_functions")


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_once_with_its_number(functions, workers):
    assert sorted(ProcessEngine(workers).run(functions.square, ITEMS)) == [(item, item * item) for item in ITEMS]
    assert list(ProcessEngine(workers).run(functions.square, [])) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_results_go_through_both_stages(functions, workers):
    found = dict(ProcessEngine(workers).run(functions.square, ITEMS, functions.with_a_sign))
    assert {number: value for number, (value, _) in found.items()} == {item: item * item for item in ITEMS}


def test_a_killed_worker_loses_nothing(functions, tmp_path):
    found = sorted(ProcessEngine(2).run(partial(functions.die_once, str(tmp_path)), ITEMS))
    assert (tmp_path / "died").exists()
    assert found == [(item, item * item) for item in ITEMS]


def test_an_item_that_kills_every_worker_is_told_and_the_others_are_done(functions):
    found = dict(ProcessEngine(2).run(functions.die_at_five, ITEMS, functions.with_a_sign))
    assert found.pop(5) == Died("its worker died 2 times (SIGKILL)")
    assert sorted(found) == [item for item in ITEMS if item != 5]


def test_workers_end_when_the_caller_stops(functions):
    running = ProcessEngine(2).run(functions.square, ITEMS)
    next(running)
    running.close()
    for child in multiprocessing.active_children():
        child.join(timeout=10)
    assert multiprocessing.active_children() == []


def test_a_worker_whose_caller_is_gone_ends(functions, tmp_path):
    code = (
        "import sys, time, os; sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        "from timeloom.curate.engines import ProcessEngine\n"
        "from functools import partial\n"
        "import worker_functions\n"
        "if __name__ == '__main__':\n"
        "    list(ProcessEngine(1).run(partial(worker_functions.tell_and_wait, sys.argv[2]), [0]))\n"
    )
    script = tmp_path / "caller.py"
    script.write_text(code)
    told = tmp_path / "pid"
    caller = subprocess.Popen([sys.executable, str(script), __file__, str(told)])
    while not told.exists() or not told.read_text():
        assert caller.poll() is None
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{told.read_text()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{told.read_text()}").exists()


def test_errors_of_our_own_are_not_hidden(functions):
    with pytest.raises(ValueError, match="a bug"):
        list(ProcessEngine(0).run(functions.fail, ITEMS))


def test_ray_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TimeloomError, match=r"pip install 'timeloom\[ray\]'"):
        make_engine("ray", 1)
