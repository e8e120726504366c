import asyncio
import base64

import pytest

from timeloom.studio.gate import CALLS_PER_10_S, COOKIE, MAX_BODY, WRONG_PASSWORDS_PER_MINUTE, Gate, session_word


class Page:
    """An application that remembers who came through."""

    def __init__(self):
        self.seen = []

    async def __call__(self, scope, receive, send):
        self.seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})


@pytest.fixture()
def knock(sessions):
    """Sends one request to a gate; returns status and headers."""
    page, now = Page(), [0.0]

    def send_one(path="/", method="GET", address="1.2.3.4", gate=None, **headers):
        sent = []

        async def send(message):
            sent.append(message)

        told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "client": (address, 5), "headers": told}
        asyncio.run((gate or send_one.gate)(scope, None, send))
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    send_one.gate, send_one.page, send_one.now = Gate(page, sessions, clock=lambda: now[0]), page, now
    return send_one


def test_opening_the_page_makes_a_visitor_once(knock, sessions):
    status, headers = knock()
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    word = session_word(cookie.partition(";")[0])
    assert sessions.find(word) is not None
    assert "set-cookie" not in knock(cookie=f"other=1; {COOKIE}={word}")[1]
    assert len(sessions) == 1
    inner = dict(knock.page.seen[0]["headers"])[b"cookie"].decode()
    assert session_word(inner) == word


def test_a_made_up_visitor_becomes_a_new_one(knock, sessions):
    cookie = knock(cookie=f"{COOKIE}=guess")[1]["set-cookie"]
    assert "guess" not in cookie
    assert len(sessions) == 1


def test_the_browser_is_told_to_ask_no_other_server(knock):
    policy = knock()[1]["content-security-policy"]
    assert "http" not in policy
    assert "default-src 'self'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=http://example.com",
        "/gradio_api/stream/x/y/z/playlist.m3u8",
        "/gradio_api/vibe-edit",
        "/gradio_api/run/submit",
        "/gradio_api/call/submit",
        "/gradio_api/deep_link",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/monitoring",
        "/docs",
        "/clip/../../etc/passwd",
        "/assets/../../../etc/passwd",
        "/clip",
    ],
)
def test_what_the_page_does_not_need_is_closed(knock, path):
    assert knock(path)[0] == 404
    assert knock.page.seen == []


def test_other_methods_are_closed(knock):
    assert knock(method="PUT")[0] == 404


@pytest.mark.parametrize(
    ("length", "status"),
    [("0", 200), (str(MAX_BODY), 200), (str(MAX_BODY + 1), 413), ("-1", 411), ("x", 411), (None, 411)],
)
def test_bodies_are_bounded(knock, length, status):
    headers = {} if length is None else {"content_length": length}
    assert knock("/gradio_api/queue/join", "POST", **headers)[0] == status


def test_calls_are_bounded_by_address(knock):
    def call(address):
        return knock("/gradio_api/queue/join", "POST", address, content_length="2")[0]

    assert {call("1.1.1.1") for _ in range(CALLS_PER_10_S)} == {200}
    assert call("1.1.1.1") == 429
    assert knock("/", address="1.1.1.1")[0] == 429
    assert call("2.2.2.2") == 200
    knock.now[0] = 10.0
    assert call("1.1.1.1") == 200


def test_a_password_is_asked_for_everywhere(sessions, knock):
    gate = Gate(knock.page, sessions, "anna:geheim:ö", clock=lambda: knock.now[0])

    def come(words=None, path="/"):
        told = {} if words is None else {"authorization": "Basic " + base64.b64encode(words.encode()).decode()}
        return knock(path, gate=gate, **told)

    status, headers = come()
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic")
    assert come(path="/clip/abc")[0] == 401
    assert knock("/", gate=gate, authorization="Basic ???")[0] == 401
    assert knock("/", gate=gate, authorization="Bearer x")[0] == 401
    assert come("anna:geheim:ö")[0] == 200
    assert {come("anna:falsch")[0] for _ in range(WRONG_PASSWORDS_PER_MINUTE)} == {401}
    assert come("anna:geheim:ö")[0] == 429
    knock.now[0] = 60.0
    assert come("anna:geheim:ö")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:7860", 200), ("evil.example:7860", 421), ("", 421)],
)
def test_on_this_machine_the_page_has_no_other_name(knock, sessions, host, status):
    gate = Gate(knock.page, sessions, hosts=["localhost", "127.0.0.1", "[::1]"])
    assert knock(gate=gate, host=host)[0] == status
