"""The first moments: Gradio takes seconds to load, and until then a page of our own says so. Plain ASGI.

A browser asks once whether the studio is ready, and is answered when it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, PlainTextResponse, Response

from timeloom.studio.gate import READY, Receive, Scope, Send

if TYPE_CHECKING:
    from fastapi import FastAPI


class Opening:
    """Answers in place of the page until that is built, in a thread; from then on the page answers.

    Args:
        build: makes the page. Called once, beside the loop that serves.
    """

    def __init__(self, build: Callable[[], FastAPI]) -> None:
        self._build = build
        self._page: FastAPI | None = None
        self._ready, self._closing = asyncio.Event(), asyncio.Event()
        self._words = resources.files("timeloom.studio").joinpath("opening.html").read_text(encoding="utf-8")

    async def hold(self) -> None:
        """Build the page and keep it open until `close`. Raises what building it raises."""
        page = await asyncio.to_thread(self._build)
        async with page.router.lifespan_context(page):
            self._page = page
            self._ready.set()
            await self._closing.wait()

    def close(self) -> None:
        """End `hold`."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == READY:
            await self._ready.wait()
            await Response(status_code=204, headers={"cache-control": "no-store"})(scope, receive, send)
        elif self._page is not None:
            await self._page(scope, receive, send)
        else:
            await self._words_for(scope["path"])(scope, receive, send)

    def _words_for(self, path: str) -> Response:
        if path == "/":
            return HTMLResponse(self._words, headers={"cache-control": "no-store"})
        told = {"cache-control": "no-store", "retry-after": "5"}
        return PlainTextResponse("The studio is getting ready: try again in a few seconds.", 503, told)
