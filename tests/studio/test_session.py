import errno
import os

import pytest

from timeloom.errors import TimeloomError
from timeloom.studio import session as session_module
from timeloom.studio.request import ClipRequest, Limits
from timeloom.studio.session import Rate
from timeloom.studio.studio import Studio

REQUEST = ClipRequest("a red seven", "m")


def test_a_rate_counts_in_a_sliding_window():
    now = [0.0]
    rate = Rate(3, 10, lambda: now[0])
    assert rate.admits(2)
    assert not rate.admits(2)
    assert rate.admits()
    now[0] = 9.9
    assert not rate.admits()
    now[0] = 10.0
    assert rate.room == 3


def test_nobody_finds_anothers_clip(sessions, engine, wait_for):
    engine.allow()
    mine, other = sessions.open(), sessions.open()
    job = mine.generate(REQUEST)
    wait_for(lambda: job.ended)
    assert mine.find(job.token) is job
    assert other.find(job.token) is None
    assert other.history == []
    assert sessions.find(mine.id) is mine
    assert sessions.find("") is sessions.find(None) is sessions.find("a guess") is None
    assert len({mine.id, other.id, job.token}) == 3
    assert min(map(len, (mine.id, job.token))) >= 24


def test_the_history_is_bounded_and_the_files_of_the_oldest_go(sessions, engine, wait_for, monkeypatch):
    monkeypatch.setattr(session_module, "HISTORY", 2)
    engine.allow()
    session, files = sessions.open(), []
    for seed in range(4):
        job = session.generate(REQUEST.with_seed(seed))
        wait_for(lambda job=job: job.ended)
        files.append(job.clip.file)
    assert [job.request.seed for job in session.history] == [3, 2, 1]
    assert [file.is_file() for file in files] == [False, True, True, True]


def test_a_comparison_takes_the_place_of_the_one_before(sessions, engine, wait_for):
    engine.allow()
    session = sessions.open()
    first = session.compare([("seed 1", REQUEST), ("seed 2", REQUEST)])
    wait_for(lambda: not session.busy)
    second = session.compare([("seed 3", REQUEST)])
    wait_for(lambda: not session.busy)
    assert session.comparison == second
    assert session.find(first[0].token) is None
    assert not first[0].clip.file.exists()


def test_removing_takes_the_file_away_and_ends_what_runs(sessions, engine, worker, wait_for):
    session = sessions.open()
    job = session.generate(REQUEST)
    wait_for(lambda: worker.running is job)
    session.remove(job.token)
    engine.allow()
    wait_for(lambda: job.ended)
    assert job.state == "cancelled"
    assert session.history == []
    session.remove("a guess")


def test_a_visitor_asks_only_so_often(sessions):
    session = sessions.open()
    session.generate(REQUEST)
    with pytest.raises(TimeloomError, match="At most 8 clips a minute"):
        session.compare([("", REQUEST)] * 8)
    assert session.comparison == []


def test_who_has_been_away_longest_makes_room(sessions, monkeypatch):
    monkeypatch.setattr(session_module, "VISITORS", 2)
    first, second = sessions.open(), sessions.open()
    first.generate(REQUEST)  # at work, so it stays
    third = sessions.open()
    assert len(sessions) == 2
    assert sessions.find(second.id) is None
    assert sessions.find(first.id) is first
    assert sessions.find(third.id) is third


def test_at_the_end_nothing_is_left(worker, engine, wait_for):
    sessions = session_module.Sessions(worker, Limits())
    session = sessions.open()
    engine.allow()
    job = session.generate(REQUEST)
    wait_for(lambda: job.ended)
    sessions.close()
    assert not job.clip.file.parent.parent.exists()


def test_a_full_disk_is_told_without_a_path_and_the_next_clip_is_made(sessions, engine, wait_for, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    engine.allow()
    with monkeypatch.context() as patched:
        patched.setattr("timeloom.data.whole_file.os.fsync", full)
        session = sessions.open()
        job = session.generate(REQUEST)
        wait_for(lambda: job.ended)
    assert (job.state, job.error) == (
        "failed",
        f"{job.token}.mp4: cannot be written (No space left on device).",
    )
    assert list(job.folder.iterdir()) == []
    again = session.generate(REQUEST)
    wait_for(lambda: again.ended)
    assert again.state == "done"


@pytest.fixture()
def studio(engine):
    studio = Studio(engine, ["m"], Limits(), {})
    yield studio
    engine.allow()
    studio.close()


def test_a_blank_seed_is_drawn_and_again_draws_another(studio, engine, wait_for):
    session = studio.visit(studio.sessions.open().id)
    studio.generate(session, {"prompt": "a red seven", "model": "m", "seed": ""})
    studio.again(session, session.history[0].token)
    again, first = session.history
    assert again.request.seed != first.request.seed
    assert again.request.with_seed(first.request.seed) == first.request


def test_a_page_without_its_visitor_is_told_to_load_again(studio):
    with pytest.raises(TimeloomError, match="load it again"):
        studio.visit("gone")
