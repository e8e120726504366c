import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest

from timeloom.errors import TimeloomError
from timeloom.study import command, server
from timeloom.study.design import LINKS, VOTES, read_study
from timeloom.study.guard import ADDRESS_BURST, LINK_BURST, Allowance
from timeloom.study.store import Store

from .conftest import BROWSER, serving


@pytest.fixture()
def client(folder, study, store):
    testing = pytest.importorskip("fastapi.testclient")
    return testing.TestClient(server.make_app(folder, study, store))


def visit(client, token, **body):
    return client.post(f"/r/{token}/visit", json={"browser": BROWSER, **body})


def body_of(state, **changes):
    task = state["tasks"][0]
    given = {
        "browser": BROWSER,
        "task": task["task"],
        "question": len(task["answered"]),
        "choice": "left",
        "milliseconds": 9,
    }
    return {**given, **changes}


def test_a_study_from_link_to_code(client, tokens):
    page = client.get(f"/r/{tokens[0]}/")
    assert page.status_code == 200 and page.headers["cache-control"] == "no-store"
    state = visit(client, tokens[0]).json()
    assert state["title"] == "Which video is better?" and len(state["questions"]) == 2
    votes = 0
    while state["tasks"]:
        clip = client.get(f"/r/{tokens[0]}/{state['tasks'][0]['left']}")
        assert clip.status_code == 200 and clip.headers["content-type"] == "video/mp4"
        reply = client.post(f"/r/{tokens[0]}/vote", json=body_of(state))
        assert reply.status_code == 200
        state, votes = reply.json(), votes + 1
    assert votes == 2 * 13 and state["done"] == 13 and state["code"]


def test_nothing_that_is_sent_names_a_system_or_a_seed(client, tokens):
    said = "".join(
        str(reply.headers) + reply.text
        for reply in (client.get("/"), client.get(f"/r/{tokens[0]}/"), visit(client, tokens[0]))
    )
    assert not any(name in said for name in ("alpha", "beta", "gamma", "attention"))
    clip = visit(client, tokens[0]).json()["tasks"][0]["left"]
    assert client.get(f"/r/{tokens[0]}/{clip}").headers["last-modified"] == "Sat, 01 Jan 2000 00:00:00 GMT"


def test_a_prompt_with_a_script_is_text(client, tokens, study):
    """The page puts prompts in as text, and its policy runs no script but its own."""
    page = client.get(f"/r/{tokens[0]}/")
    assert "<b>blue</b>" in study.prompts[1] and "<b>blue</b>" not in page.text
    assert "innerHTML" not in page.text and "document.write" not in page.text and "eval(" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy
    assert page.headers["referrer-policy"] == "no-referrer" and page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "media/../study.json",
        "media/..%2fstudy.json",
        "media/%2e%2e/votes.sqlite",
        "media/....//links.csv",
        "media//etc/passwd",
        "media/%00.mp4",
        "media/study.json",
        "../../study.json",
        "study.json",
        "votes.sqlite",
        "media/" + "0" * 32 + ".mp4",
        "docs",
        "openapi.json",
    ],
)
def test_only_its_own_files(client, tokens, path):
    reply = client.get(f"/r/{tokens[0]}/{path}")
    assert reply.status_code in (404, 405) and "alpha" not in reply.text


def test_clips_need_a_link(client, study):
    clip = min(study.clips)
    assert client.get(f"/r/{'x' * 22}/media/{clip}.mp4").status_code == 404
    assert visit(client, "x" * 22).status_code == 404
    assert client.post(f"/r/{'x' * 22}/vote", json={}).status_code == 422


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "up"},
        {"question": "0"},
        {"question": -1},
        {"question": True},
        {"milliseconds": -5},
        {"milliseconds": 10**12},
        {"task": "../../../../x"},
        {"task": "'; DROP TABLE votes; --"},
        {"browser": "<script>"},
        {"more": 1},
        {"milliseconds": float("1e400")},
    ],
)
def test_what_the_page_does_not_send_is_refused(client, tokens, folder, change):
    said = json.dumps(body_of(visit(client, tokens[0]).json(), **change))
    reply = client.post(f"/r/{tokens[0]}/vote", content=said, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 403, 422) and "script" not in reply.text
    assert sqlite3.connect(folder / VOTES).execute("SELECT count(*) FROM votes").fetchone() == (0,)


def test_sizes_are_bounded(client, tokens):
    big = client.post(f"/r/{tokens[0]}/vote", content=b"x" * 5000)
    assert big.status_code == 413
    chunked = client.post(f"/r/{tokens[0]}/vote", content=iter([b"x"]))
    assert chunked.status_code == 411
    assert client.get("/" + "x" * 300).status_code == 414


def test_rates_are_bounded_for_each_link(client, tokens):
    for allowance in (client.app._links, client.app._addresses):
        allowance.clock = lambda: 0.0  # however long the requests take
    codes = Counter(client.get(f"/r/{tokens[0]}/").status_code for _ in range(int(LINK_BURST) + 5))
    assert codes == {200: LINK_BURST, 429: 5}
    assert client.get(f"/r/{tokens[1]}/").status_code == 200
    codes = Counter(client.get(f"/r/{'x' * 22}/").status_code for _ in range(int(ADDRESS_BURST) + 5))
    assert codes == {200: ADDRESS_BURST, 429: 5}
    assert client.get(f"/r/{tokens[1]}/").status_code == 200


def test_an_allowance_refills_and_forgets_old_names():
    now = [0.0]
    allowance = Allowance(rate=2, burst=3, clock=lambda: now[0])
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    now[0] = 1.0
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
    assert allowance.take("b")


def test_a_password_is_asked_for(folder, study, store, tokens):
    testing = pytest.importorskip("fastapi.testclient")
    client = testing.TestClient(server.make_app(folder, study, store, "lab:correct horse"))
    reply = client.get(f"/r/{tokens[0]}/")
    assert reply.status_code == 401 and reply.headers["www-authenticate"].startswith("Basic")
    assert client.get(f"/r/{tokens[0]}/", auth=("lab", "wrong horse")).status_code == 401
    assert client.get(f"/r/{tokens[0]}/", auth=("lab", "correct horse")).status_code == 200
    codes = {client.get(f"/r/{tokens[0]}/", auth=("lab", str(guess))).status_code for guess in range(100)}
    assert codes == {401, 429}


def test_other_machines_only_with_a_password():
    assert command.check_auth("127.0.0.1", None) is None
    with pytest.raises(TimeloomError, match="--auth NAME:PASSWORD"):
        command.check_auth("0.0.0.0", None)
    assert command.check_auth("0.0.0.0", "links") is None
    assert command.check_auth("0.0.0.0", "lab:long enough") == "lab:long enough"
    for short in ("lab", "lab:", ":long enough", "lab:short"):
        with pytest.raises(TimeloomError, match="at least 8 characters"):
            command.check_auth("0.0.0.0", short)


def test_a_port_in_use_is_named(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TimeloomError, match=f"port {port}: Address already in use. Choose another --port"):
            command.main(["serve", str(folder), "--port", str(port)])
    with pytest.raises(TimeloomError, match="0 to 65535"):
        command.main(["serve", str(folder), "--port", "99999"])


def test_without_fastapi_the_install_command_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "timeloom.study.server", None)
    with pytest.raises(TimeloomError, match=r"pip install 'timeloom\[study\]'"):
        command.main(["serve", str(folder)])


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def vote_until_cut_off(base, token, browser, acknowledged, sent):
    try:
        state = post(f"{base}/r/{token}/visit", {"browser": browser})
        while state["tasks"]:
            body = body_of(state, browser=browser)
            sent.append((body["task"], body["question"]))
            state = post(f"{base}/r/{token}/vote", body)
            acknowledged.append((body["task"], body["question"]))
    except (OSError, urllib.error.URLError, ValueError):
        return


@pytest.mark.slow
def test_killed_in_the_middle_it_has_every_acknowledged_vote(folder):
    with serving(folder) as (base, process):
        tokens = [
            line.split(",")[1].split("/r/")[1].strip("/") for line in (folder / LINKS).read_text().splitlines()[1:]
        ]
        acknowledged, sent = [], []
        threads = [
            threading.Thread(target=vote_until_cut_off, args=(base, token, f"{n:024x}", acknowledged, sent))
            for n, token in enumerate(tokens)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(acknowledged) < 12 and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 12 and len(sent) < 3 * 26  # it was in the middle
    with Store(folder, read_study(folder)) as store:
        rows = store.do(lambda desk: desk.connection.execute("SELECT task, question FROM votes").fetchall()).result()
    kept = Counter(tuple(row) for row in rows)
    assert set(acknowledged) <= set(kept) <= set(sent) and set(kept.values()) == {1}
    with serving(folder) as (base, _):  # and it goes on, with what was sent but not acknowledged sent again
        for number, token in enumerate(tokens):
            vote_until_cut_off(base, token, f"{number:024x}", acknowledged, sent)
    connection = sqlite3.connect(folder / VOTES)
    assert connection.execute("SELECT count(*) FROM votes").fetchone()[0] == 2 * (2 * 12 + 2)
    connection.close()


def test_ctrl_c_ends_it_quietly(folder):
    with serving(folder) as (_, process):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert "Traceback" not in process.stderr.read()
