"""The gate before the page: who may come in, what they may call, how often and with how much. Plain ASGI.

Gradio brings some eighty routes: uploads, a proxy, files by path, editing by chat, ... The page needs a dozen of them,
and only those can be reached. The content policy keeps the browser from asking any other server for anything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from timeloom.studio.session import Rate, Sessions

COOKIE = "timeloom_studio"
READY = "/ready"
"""Answered once the page is there; see `opening`."""
OPEN_PATHS = ("/", READY, "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
OPEN_FOLDERS = ("/assets/", "/static/", "/clip/", "/browse/")
OPEN_CALLS = (
    "queue/join",
    "queue/data",
    "cancel",
    "reset",
    "startup-events",
    "theme.css",
    "app_id",
    "heartbeat/",
    "info",
)
"""Of Gradio's own, below /gradio_api/."""
MAX_BODY = 64 * 1024
CALLS_PER_10_S = 100
WRONG_PASSWORDS_PER_MINUTE = 20
ADDRESSES = 4096
"""Whose rates are remembered."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """Lets through to `app` what the page needs, and refuses all else.

    Args:
        app: the page.
        sessions: a browser that opens the page becomes a visitor by a cookie.
        password: "name:password" that every request must bring (HTTP basic), or None.
        hosts: names that the page may be called by, or None for any. On a loopback address this keeps pages of other
            sites, whose name may point here, from speaking to it.
        clock: seconds.
    """

    def __init__(
        self,
        app: App,
        sessions: Sessions,
        password: str | None = None,
        hosts: Iterable[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._sessions = app, sessions
        self._password = password
        self._hosts = None if hosts is None else frozenset(hosts)
        self._clock = clock
        self._calls: OrderedDict[str, Rate] = OrderedDict()
        self._wrong: OrderedDict[str, Rate] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # Gradio's page uses no web sockets
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        cookie = b""
        if scope["path"] == "/" and self._sessions.find(session_word(headers.get("cookie"))) is None:
            word = self._sessions.open().id
            cookie = f"{COOKIE}={word}; HttpOnly; SameSite=Strict; Path=/".encode()
            scope = {**scope, "headers": [*scope["headers"], (b"cookie", cookie.partition(b";")[0])]}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {
                    **message,
                    "headers": [*message["headers"], *own, *([(b"set-cookie", cookie)] if cookie else [])],
                }
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | None:
        """Status, sentence and headers of a refusal; None where all is well."""
        address = (scope.get("client") or ("",))[0]
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if self._hosts is not None and host not in self._hosts:
            return 421, "This page is not called by that name.", {}
        if self._password is not None and (refusal := self._check_password(address, headers.get("authorization", ""))):
            return refusal
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST") or not _is_open(path):
            return 404, "There is nothing here.", {}
        if method == "POST":
            if not headers.get("content-length", "").isdecimal():
                return 411, "The length of the request is missing.", {}
            if int(headers["content-length"]) > MAX_BODY:
                return 413, "The request is too long.", {}
        if (method == "POST" or path == "/") and not self._rate(self._calls, address, CALLS_PER_10_S, 10).admits():
            return 429, "Too many requests: wait a little.", {"retry-after": "10"}
        return None

    def _check_password(self, address: str, given: str) -> tuple[int, str, dict[str, str]] | None:
        kind, _, encoded = given.partition(" ")
        try:
            told = base64.b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            told = b""
        wrong = self._rate(self._wrong, address, WRONG_PASSWORDS_PER_MINUTE, 60)
        if not wrong.room:
            return 429, "Too many wrong passwords: wait a minute.", {"retry-after": "60"}
        if hmac.compare_digest(told, (self._password or "").encode()):
            return None
        if told:
            wrong.admits()
        return 401, "Name and password, please.", {"www-authenticate": 'Basic realm="Timeloom studio", charset="UTF-8"'}

    def _rate(self, rates: OrderedDict[str, Rate], address: str, count: int, period_s: float) -> Rate:
        if address not in rates:
            rates[address] = Rate(count, period_s, self._clock)
        rates.move_to_end(address)
        while len(rates) > ADDRESSES:
            rates.popitem(last=False)
        return rates[address]


def session_word(cookies: str | None) -> str | None:
    """The visitor's word in a Cookie header."""
    try:
        morsel = SimpleCookie(cookies or "").get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None


def _is_open(path: str) -> bool:
    if path in OPEN_PATHS:
        return True
    if path.startswith("/gradio_api/"):
        call = path.removeprefix("/gradio_api/")
        return call.rstrip("/") in OPEN_CALLS or call.startswith("heartbeat/")
    return path.startswith(OPEN_FOLDERS) and ".." not in path


async def _answer(send: Send, status: int, sentence: str, headers: dict[str, str]) -> None:
    told = {"content-type": "text/plain; charset=utf-8", **HEADERS, **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        }
    )
    await send({"type": "http.response.body", "body": sentence.encode()})
