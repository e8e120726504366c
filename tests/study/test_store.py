import json
import sqlite3
from collections import Counter

import pytest

from timeloom.errors import TimeloomError
from timeloom.study.design import VOTES, read_study, write_study
from timeloom.study.desk import HELD_S, Desk, Refused
from timeloom.study.store import Store, count_votes

from .conftest import BROWSER, answer_all, ask

OTHER = "f" * 24


def visit(store, token, browser=BROWSER, take_over=False):
    return ask(store, lambda desk: desk.visit(token, browser, take_over))


def vote(store, token, task, question=0, choice="left", milliseconds=1000, browser=BROWSER):
    return ask(store, lambda desk: desk.vote(token, browser, task, question, choice, milliseconds))


def stored(folder):
    connection = sqlite3.connect(folder / VOTES)
    found = connection.execute("SELECT task, question, choice, milliseconds FROM votes").fetchall()
    connection.close()
    return found


def test_pairs_get_as_many_raters_as_wanted_and_nobody_the_same_pair_twice(store, study, tokens):
    states = [answer_all(store, token, lambda *_: "none") for token in tokens]
    given = ask(store, lambda desk: desk.connection.execute("SELECT rater, pair FROM tasks").fetchall())
    given = [tuple(row) for row in given]
    assert len(set(given)) == len(given)
    each = Counter(pair for _, pair in given)
    assert [each[pair] for pair in range(12)] == [study.raters_per_pair] * 12
    assert states[0]["done"] == states[0]["total"] == 13 and states[0]["code"] and not states[0]["tasks"]
    late = states[-1]  # all have their votes
    assert late["done"] == 0 and late["code"] is None and not late["tasks"]


def test_raters_have_their_own_order_and_each_system_is_left_for_half(folder):
    study = read_study(folder).model_copy(update={"raters_per_pair": 10, "links": 10})
    with Store(folder, study) as store:
        tokens = [token for _, token, _ in ask(store, Desk.links)]
        for token in tokens:
            answer_all(store, token, lambda *_: "left")
        tasks = ask(
            store,
            lambda desk: desk.connection.execute("SELECT rater, pair, flipped FROM tasks ORDER BY place").fetchall(),
        )
    orders = {tuple(pair for own, pair, _ in tasks if own == rater) for rater in range(1, 11)}
    assert len(orders) == 10
    flips = Counter(pair for _, pair, flipped in tasks if flipped)
    assert set(flips.values()) == {5} and len(flips) == 13


def test_the_seed_gives_the_order_again(folder, tmp_path):
    study = read_study(folder)

    def orders(path, seed):
        path.mkdir()
        with Store(path, study.model_copy(update={"seed": seed})) as store:
            for token in [token for _, token, _ in ask(store, Desk.links)]:
                answer_all(store, token, lambda *_: "left")
            rows = ask(
                store, lambda desk: desk.connection.execute("SELECT rater, pair, flipped FROM tasks ORDER BY 1, place")
            )
            return [tuple(row) for row in rows]

    first = orders(tmp_path / "a", 1)
    assert orders(tmp_path / "b", 1) == first != orders(tmp_path / "c", 2)


def test_a_browser_learns_no_name_and_no_difference_of_attention_pairs(store, study, tokens):
    seen = []
    state = visit(store, tokens[0])
    while state["tasks"]:
        seen += [task for task in state["tasks"] if task not in seen]
        task = state["tasks"][0]
        state = vote(store, tokens[0], task["task"], len(task["answered"]))
    assert len({frozenset(task) for task in seen}) == 1
    text = json.dumps(seen)
    assert not any(name in text for name in ("alpha", "beta", "gamma", "attention", str(study.seed) + ":"))


def test_a_vote_sent_twice_counts_once_and_the_first_counts(store, folder, tokens):
    task = visit(store, tokens[0])["tasks"][0]["task"]
    first = vote(store, tokens[0], task, choice="left")
    again = vote(store, tokens[0], task, choice="left")
    changed = vote(store, tokens[0], task, choice="right")
    assert first["tasks"] == again["tasks"] == changed["tasks"]
    assert [(row[2]) for row in stored(folder)] == ["left"]


def test_forged_votes_are_refused(store, folder, tokens):
    mine = visit(store, tokens[0])["tasks"][0]["task"]
    theirs = visit(store, tokens[1], OTHER)["tasks"][0]["task"]
    for token, task, question, choice, status in (
        ("x" * 22, mine, 0, "left", 404),
        (tokens[0], theirs, 0, "left", 403),
        (tokens[0], "x" * 12, 0, "left", 403),
        (tokens[0], mine, 2, "left", 403),
        (tokens[0], mine, -1, "left", 403),
        (tokens[0], mine, 0, "alpha", 403),
        (tokens[0], "' OR 1=1 --", 0, "left", 403),
    ):
        with pytest.raises(Refused) as refused:
            vote(store, token, task, question, choice)
        assert refused.value.status == status
    assert stored(folder) == []


def test_a_link_on_two_machines(store, folder, tokens):
    task = visit(store, tokens[0])["tasks"][0]["task"]
    vote(store, tokens[0], task)
    for refused in (lambda: visit(store, tokens[0], OTHER), lambda: vote(store, tokens[0], task, 1, browser=OTHER)):
        with pytest.raises(Refused, match="another browser") as error:
            refused()
        assert error.value.status == 409
    state = visit(store, tokens[0], OTHER, take_over=True)
    assert state["tasks"][0] == {**state["tasks"][0], "task": task, "answered": [0]}  # nothing is lost
    vote(store, tokens[0], task, 1, browser=OTHER)
    with pytest.raises(Refused, match="another browser"):
        vote(store, tokens[0], task, 1)
    assert len(stored(folder)) == 2


def test_time_cannot_be_longer_than_the_server_saw(store, folder, tokens):
    task = visit(store, tokens[0])["tasks"][0]["task"]
    vote(store, tokens[0], task, milliseconds=86_400_000)
    assert stored(folder)[0][3] < 60_000


def test_whoever_does_not_come_back_gives_their_pairs_to_others(folder):
    study = read_study(folder).model_copy(update={"raters_per_pair": 1, "attention_per_rater": 0})
    study = study.model_copy(update={"pairs": study.pairs[:1], "pairs_per_rater": 1})
    now = [1000.0]
    with Store(folder, study) as store:
        ask(store, lambda desk: setattr(desk, "clock", lambda: now[0]))
        first, second, third = [token for _, token, _ in ask(store, Desk.links)][:3]
        slow = visit(store, first)["tasks"][0]["task"]
        assert visit(store, second)["tasks"] == []
        now[0] += HELD_S + 1
        quick = visit(store, second)["tasks"][0]["task"]
        for task, token in ((quick, second), (slow, first)):  # the slow one's answers count all the same
            vote(store, token, task, 0)
            assert vote(store, token, task, 1)["code"]
        assert visit(store, third)["tasks"] == []
        taken = ask(store, lambda desk: desk.connection.execute("SELECT taken FROM pairs").fetchone()[0])
        assert taken == 2 and len(stored(folder)) == 4


def test_acknowledged_means_committed(store, folder, tokens):
    """What an acknowledgement says is there for another process, and commits wait for the disk."""
    task = visit(store, tokens[0])["tasks"][0]["task"]
    for question in (0, 1):
        vote(store, tokens[0], task, question)
        assert len(stored(folder)) == question + 1
    pragmas = [
        ask(store, lambda desk, name=name: desk.connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("journal_mode", "synchronous")
    ]
    assert pragmas == ["wal", 2]


def test_one_refused_action_undoes_nothing_else(store, folder, tokens):
    task = visit(store, tokens[0])["tasks"][0]["task"]

    def half(desk):
        desk.connection.execute("INSERT INTO votes VALUES ('half', 0, 'left', 0, 0)")
        raise Refused(403, "no")

    futures = [
        store.do(half),
        store.do(lambda desk: desk.vote(tokens[0], BROWSER, task, 0, "left", 5)),
        store.do(half),
    ]
    assert [future.exception(10) is None for future in futures] == [False, True, False]
    assert [row[0] for row in stored(folder)] == [task]


def test_a_full_disk_refuses_and_loses_nothing(store, folder, tokens):
    state = visit(store, tokens[0])
    task = state["tasks"][0]["task"]
    vote(store, tokens[0], task, 0)
    pages = ask(store, lambda desk: desk.connection.execute("PRAGMA page_count").fetchone()[0])
    limit = store._connection.execute  # not within a transaction
    ask(store, lambda desk: None)
    limit(f"PRAGMA max_page_count = {pages}")

    def large(desk):
        desk.connection.execute("INSERT INTO facts VALUES ('large', ?)", ("x" * 100_000,))

    with pytest.raises(Refused, match="disk is full; your answer is kept here and sent again") as error:
        ask(store, large)
    assert error.value.status == 507
    limit("PRAGMA max_page_count = 100000")
    vote(store, tokens[0], task, 1)
    assert len(stored(folder)) == 2


def test_a_changed_study_is_refused_once_there_are_votes(folder, study):
    changed = study.model_copy(update={"title": "Another"})
    with Store(folder, study) as store:
        token = ask(store, Desk.links)[0][1]
        task = visit(store, token)["tasks"][0]["task"]
    with Store(folder, changed) as store:  # no vote yet: it starts anew
        assert token not in [other for _, other, _ in ask(store, Desk.links)]
        token = ask(store, Desk.links)[0][1]
        task = visit(store, token)["tasks"][0]["task"]
        vote(store, token, task)
    write_study(study, folder)
    with pytest.raises(TimeloomError, match="changed after 1 votes"):
        Store(folder, read_study(folder))
    assert count_votes(folder) == 1
    with Store(folder, changed) as store:
        assert visit(store, token)["tasks"][0]["answered"] == [0]


def test_a_damaged_file_of_votes_is_named(folder, study):
    (folder / VOTES).write_bytes(b"no database" * 1000)
    with pytest.raises(TimeloomError, match=r"votes\.sqlite: cannot be used"):
        Store(folder, study)
    with pytest.raises(TimeloomError, match=r"votes\.sqlite: cannot be read"):
        count_votes(folder)


def test_links_are_long_and_random(tokens, study):
    assert len(set(tokens)) == study.links and all(len(token) == 22 for token in tokens)
