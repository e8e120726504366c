import io

import pytest
from PIL import Image

from timeloom.errors import TimeloomError
from timeloom.studio.jobs import Job
from timeloom.studio.request import ClipRequest


@pytest.fixture()
def ask(worker, tmp_path):
    def submit(*owners, seed=0):
        jobs = [Job(ClipRequest("a red seven", "m", seed=seed + i), owner, tmp_path) for i, owner in enumerate(owners)]
        worker.submit(jobs)
        return jobs

    return submit


def test_a_job_tells_how_far_it_is_and_what_it_looks_like(ask, engine, wait_for):
    [job] = ask("a")
    engine.allow(1)
    wait_for(lambda: job.step == 1)
    assert (job.state, job.steps) == ("running", 3)
    assert Image.open(io.BytesIO(job.preview)).size == (8, 8)
    engine.allow()
    wait_for(lambda: job.ended)
    assert job.state == "done"
    assert job.clip.file.is_file()
    assert job.preview == b""


def test_the_queue_is_bounded_and_takes_all_or_none(ask, worker, wait_for):
    [running] = ask("a")
    wait_for(lambda: worker.running is running)
    waiting = ask(*"bcde")
    with pytest.raises(TimeloomError, match=r"queue is full \(4 of 5 places taken\)"):
        ask("f", "f")
    assert [worker.ahead_of(job) for job in waiting] == [1, 2, 3, 4]
    ask("f")


def test_visitors_take_turns(ask, engine, worker, wait_for):
    [running] = ask("a", seed=100)
    wait_for(lambda: worker.running is running)
    jobs = [*ask("a", "a", seed=10), *ask("b", "b", seed=20)]
    engine.allow()
    wait_for(lambda: all(job.ended for job in jobs))
    assert [request.seed for request in engine.made] == [100, 20, 10, 21, 11]


def test_cancelling_ends_what_waits_at_once_and_what_runs_at_its_next_step(ask, engine, worker, wait_for):
    running, waiting = ask("a", "a")
    wait_for(lambda: worker.running is running)
    worker.cancel(waiting)
    assert waiting.state == "cancelled"
    worker.cancel(running)
    engine.allow(1)
    wait_for(lambda: running.ended)
    assert running.state == "cancelled"
    assert engine.made == []


def test_cancelling_after_the_last_step_leaves_no_file(ask, engine, worker, wait_for, tmp_path, monkeypatch):
    make = engine.make

    def cancelled_at_the_end(request, folder, token, on_step):
        clip = make(request, folder, token, on_step)
        worker.cancel(job)
        return clip

    monkeypatch.setattr(engine, "make", cancelled_at_the_end)
    [job] = ask("a")
    engine.allow()
    wait_for(lambda: job.ended)
    assert (job.state, job.clip, list(tmp_path.iterdir())) == ("cancelled", None, [])


@pytest.mark.parametrize(
    ("error", "told"),
    [(TimeloomError("The width is odd."), "The width is odd."), (ValueError("/secret/path"), "log says why")],
)
def test_an_error_is_told_and_the_next_clip_is_made(ask, engine, wait_for, error, told):
    engine.error = error
    engine.allow()
    [bad] = ask("a")
    wait_for(lambda: bad.ended)
    assert bad.state == "failed"
    assert told in bad.error
    assert "secret" not in bad.error
    engine.error = None
    [good] = ask("a")
    wait_for(lambda: good.ended)
    assert good.state == "done"


def test_closing_ends_everything(ask, engine, worker, wait_for):
    running, waiting = ask("a", "b")
    wait_for(lambda: worker.running is running)
    engine.allow(1)
    worker.close()
    assert running.state == "cancelled"
    assert waiting.state == "waiting"
    assert engine.made == []
