import asyncio
import threading

import pytest

pytest.importorskip("fastapi", reason="needs gradio: pip install 'timeloom[studio]'")
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from timeloom.errors import TimeloomError
from timeloom.studio.command import Options, _answer, _listen
from timeloom.studio.gate import COOKIE, Gate
from timeloom.studio.opening import Opening


class Building:
    """A page that takes as long to build as the test likes."""

    def __init__(self):
        self.may_end, self.error = threading.Event(), None

    def __call__(self):
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error
        app = FastAPI()
        app.get("/")(lambda: HTMLResponse('<link rel="icon" href="data:,"><h1>the studio itself</h1>'))
        return app


async def ask(app, path="/"):
    """Status, headers and text of one request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", b"localhost")]}
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]).decode()


def test_until_the_page_is_there_another_says_so(sessions):
    building = Building()

    async def open_and_look():
        opening = Opening(building)
        gate = Gate(opening, sessions)
        page = asyncio.create_task(opening.hold())
        status, headers, text = await ask(gate)
        assert status == 200
        assert "getting ready" in text
        assert headers["cache-control"] == "no-store"
        assert COOKIE in headers["set-cookie"]
        status, headers, text = await ask(gate, "/config")
        assert (status, headers["retry-after"], "getting ready" in text) == (503, "5", True)
        asked = asyncio.create_task(ask(gate, "/ready"))
        await asyncio.sleep(0)
        assert not asked.done()
        building.may_end.set()
        assert (await asked)[0] == 204
        assert (await ask(gate, "/ready"))[0] == 204
        assert "the studio itself" in (await ask(gate))[2]
        opening.close()
        await page

    asyncio.run(open_and_look())


def test_the_gate_is_before_it_from_the_first_moment(sessions):
    async def look():
        opening = Opening(Building())
        assert (await ask(Gate(opening, sessions, "anna:geheim")))[0] == 401
        assert (await ask(Gate(opening, sessions, "anna:geheim"), "/ready"))[0] == 401
        assert (await ask(Gate(opening, sessions, hosts=["127.0.0.1"])))[0] == 421
        assert (await ask(Gate(opening, sessions), "/docs"))[0] == 404

    asyncio.run(look())


def test_a_page_that_cannot_be_built_ends_the_studio(sessions):
    building = Building()
    building.error = TimeloomError("There is no page.")
    building.may_end.set()
    opening = Opening(building)
    with _listen(Options(port=0)) as listening, pytest.raises(TimeloomError, match="There is no page"):
        asyncio.run(_answer(Gate(opening, sessions), opening, listening))


def test_in_a_browser_it_turns_into_the_studio_by_itself(chromium, sessions, wait_for):
    building = Building()
    with _listen(Options(port=0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        opening = Opening(building)
        server = uvicorn.Server(uvicorn.Config(Gate(opening, sessions), lifespan="off", log_level="warning"))

        async def serve():
            page = asyncio.create_task(opening.hold())
            await server.serve([listening])
            opening.close()
            await page

        serving = threading.Thread(target=asyncio.run, args=(serve(),))
        serving.start()
        try:
            chromium.get_log("browser")
            chromium.get(address)
            assert "getting ready" in chromium.find_element("css selector", "[role=status]").text
            building.may_end.set()
            wait_for(lambda: "the studio itself" in chromium.page_source)
            assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
        finally:
            building.may_end.set()
            server.should_exit = True
            serving.join(30)
