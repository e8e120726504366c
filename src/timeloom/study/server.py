"""The study as a web page: one template, two requests, and the clips. Needs the extra [study].

GET  /r/TOKEN/                    the page
POST /r/TOKEN/visit               {browser, take_over}                                     → what comes next
POST /r/TOKEN/vote                {browser, task, question, choice, milliseconds}          → stored, and what comes next
GET  /r/TOKEN/media/NAME.mp4      a clip
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from timeloom.errors import TimeloomError
from timeloom.study.design import MEDIA, Study
from timeloom.study.desk import Choice, Desk, Refused
from timeloom.study.guard import Guard
from timeloom.study.page import greeting, page, policy
from timeloom.study.store import Store

MOST_CONNECTIONS = 1000
KEPT_OPEN_S = 20
LARGEST_HEAD = 16 << 10
FRESH = {"Cache-Control": "no-store"}


class Body(BaseModel):
    """What every request says."""

    model_config = ConfigDict(extra="forbid", strict=True)
    browser: str = Field(pattern=r"^[0-9a-f]{24}$")


class Visit(Body):
    """A rater comes, or comes back."""

    take_over: bool = False


class Vote(Body):
    """A rater's answer."""

    task: str = Field(pattern=r"^[A-Za-z0-9_-]{12}$")
    question: int = Field(ge=0, le=100)
    choice: Choice
    milliseconds: int = Field(ge=0, le=86_400_000)


def make_app(
    folder: Path,
    study: Study,
    store: Store,
    password: str | None = None,
    opened: Callable[[], None] = lambda: None,
) -> Guard:
    """The application, ready for uvicorn. `password` is NAME:PASSWORD, which browsers ask for; None asks for none.

    `opened` is called once the server answers and has Ctrl-C in hand.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opened()
        yield

    app = FastAPI(title="Timeloom study", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    tokens = frozenset(token for _, token, _ in store.do(Desk.links).result())

    def refuse(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Refused):
            return JSONResponse({"error": error.sentence}, error.status)
        return JSONResponse({"error": "This is no answer that the page gives."}, 422)

    app.add_exception_handler(Refused, refuse)
    app.add_exception_handler(RequestValidationError, refuse)
    _add_pages(app, folder, study, tokens)
    _add_requests(app, study, store)
    return Guard(app, tokens, password)


def _add_pages(app: FastAPI, folder: Path, study: Study, tokens: frozenset[str]) -> None:
    html = page("server")
    headers = {**FRESH, "Content-Security-Policy": policy(html)}
    # A request chooses among these; nothing in it becomes part of a path.
    files = {f"{clip}.mp4": folder / MEDIA / f"{clip}.mp4" for clip in study.clips}

    @app.get("/", response_model=None)
    async def root() -> PlainTextResponse:
        return PlainTextResponse("This is a study. Please use the link that you were given.\n")

    @app.get("/r/{token}/", response_model=None)
    async def show(token: str) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    @app.get("/r/{token}/media/{name}", response_model=None)
    async def clip(token: str, name: str) -> FileResponse:
        if token not in tokens or name not in files:
            raise Refused(404, "There is no such video.")
        return FileResponse(
            files[name], media_type="video/mp4", headers={"Cache-Control": "private, max-age=86400, immutable"}
        )


def _add_requests(app: FastAPI, study: Study, store: Store) -> None:
    said_always = greeting(study)

    async def done(action: Callable[[Desk], dict[str, Any]]) -> dict[str, Any]:
        return await asyncio.wrap_future(store.do(action))

    @app.post("/r/{token}/visit", response_model=None)
    async def visit(token: str, said: Visit) -> JSONResponse:
        state = await done(lambda desk: desk.visit(token, said.browser, said.take_over))
        return JSONResponse({**said_always, **state}, headers=FRESH)

    @app.post("/r/{token}/vote", response_model=None)
    async def vote(token: str, said: Vote) -> JSONResponse:
        state = await done(
            lambda desk: desk.vote(token, said.browser, said.task, said.question, said.choice, said.milliseconds)
        )
        return JSONResponse(state, headers=FRESH)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises TimeloomError: the port is in use, or the address is not this machine's."""
    if not 0 <= port <= 65535:
        raise TimeloomError(f"--port must be 0 to 65535, not {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TimeloomError(f"Cannot listen on {host}, port {port}: {error}.") from error
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(128)
    except OSError as error:
        server.close()
        why = error.strerror
        raise TimeloomError(f"Cannot listen on {host}, port {port}: {why}. Choose another --port or --host.") from error
    return server


def run(app: Guard, server: socket.socket) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEPT_OPEN_S,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[server])
