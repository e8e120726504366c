"""What stands before the pages: a password, bounded sizes and rates, headers. Plain ASGI, around any application."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 2048
LONGEST_PATH = 200
LINK_RATE, LINK_BURST = 20.0, 200.0
"""Requests a second for one rater's link, and how many at once."""
ADDRESS_RATE, ADDRESS_BURST = 2.0, 60.0
"""The same for an address without a link or a password that we know."""
MOST_ADDRESSES = 10_000
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # a rater's link is their password
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Allowance:
    """Requests that may be made at once, refilled at a steady rate (a token bucket), for each of many names."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> bool:
        """Whether one more may be made now."""
        now = self.clock()
        left, since = self._left.pop(name, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        self._left[name] = (max(0.0, left - 1), now)  # the last in the dictionary is the latest
        if len(self._left) > MOST_ADDRESSES:
            del self._left[next(iter(self._left))]
        return left >= 1


class Guard:
    """Lets a request through to `application`, or answers it.

    Args:
        tokens: of the links that exist. A request for /r/TOKEN/... with one of them counts on that link's allowance.
        password: NAME:PASSWORD that browsers ask for, or None.
    """

    def __init__(self, application: Application, tokens: Collection[str], password: str | None = None) -> None:
        self.application, self.tokens = application, frozenset(tokens)
        self._expected = b"Basic " + base64.b64encode(password.encode()) if password else None
        self._links, self._addresses = Allowance(LINK_RATE, LINK_BURST), Allowance(ADDRESS_RATE, ADDRESS_BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is None:
                await self.application(scope, receive, _with_headers(send))
            else:
                await _answer(_with_headers(send), *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        link = re.match(r"/r/([A-Za-z0-9_-]+)/", scope["path"])
        known = bool(link and link[1] in self.tokens)
        entered = self._expected is None or secrets.compare_digest(headers.get(b"authorization", b""), self._expected)
        address = scope["client"][0] if scope.get("client") else "unknown"
        if not (self._links.take(link[1]) if link and known and entered else self._addresses.take(address)):
            return 429, "Too many requests; please wait a few seconds."
        if not entered:
            return 401, "This study asks for a name and a password."
        if len(scope["raw_path"] if scope.get("raw_path") else scope["path"]) > LONGEST_PATH:
            return 414, "This address is too long."
        if scope["method"] not in ("GET", "HEAD"):
            length = headers.get(b"content-length", b"")
            if not length.isdigit():
                return 411, "The length of the request is missing."
            if int(length) > LARGEST_BODY:
                return 413, "The request is too large."
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="study", charset="UTF-8"'))
    if status == 429:
        headers.append((b"retry-after", b"5"))
    # The body of the request is not read: the connection cannot be used again.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
