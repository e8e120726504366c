"""The page in Gradio: forms and events. What they do is in `studio`, what they show in `views`.

Import it only when the page is to be served: Gradio is an extra, and takes seconds to load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import resources
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, Response

from timeloom.errors import TimeloomError
from timeloom.studio import views
from timeloom.studio.browse import ALL
from timeloom.studio.gate import COOKIE, MAX_BODY
from timeloom.studio.request import SAMPLERS, form_values
from timeloom.studio.session import Session
from timeloom.studio.studio import Studio

LOOK_EVERY_S = 0.25
PER_PAGE = 12
FORM = (
    "prompt",
    "negative_prompt",
    "model",
    "seed",
    "steps",
    "guidance",
    "frames",
    "sampler",
    "height",
    "width",
    "upscale",
)
COMPARED = ("prompt", "negative_prompt", "model", "seed", "steps", "guidance", "sampler", "frames", "upscale")
UPSCALE = "Upscale: make the frames larger at the end"
ON_CLICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (button) trigger('click', { action: button.dataset.action, token: button.dataset.token });
});"""


def build_page(studio: Studio) -> FastAPI:
    """The whole page, to be served behind a gate."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(app, studio)
    blocks = _build_blocks(studio)
    blocks.queue(max_size=studio.limits.max_waiting * 8, default_concurrency_limit=None, api_open=False)
    files = resources.files("timeloom.studio")
    fonts = ["system-ui", "sans-serif"]
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        css=(files / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(files / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=MAX_BODY,
    )
    return app


def _add_files(app: Any, studio: Studio) -> None:
    """The two kinds of files that the page serves: a visitor's own clips, and what is drawn of a browsed folder."""

    def clip(token: str, request: Request) -> FileResponse:
        session = studio.sessions.find(request.cookies.get(COOKIE))
        job = session.find(token) if session is not None else None
        if job is None or job.clip is None or not job.clip.file.is_file():
            raise HTTPException(404)
        return FileResponse(job.clip.file, headers={"cache-control": "private, no-store"})

    def item(key: int, number: int) -> Response:
        try:
            drawn = studio.shelf.draw(key, number)
        except TimeloomError as error:
            raise HTTPException(404, str(error)) from error
        if drawn is None:
            raise HTTPException(404)
        return Response(drawn[0], media_type=drawn[1], headers={"cache-control": "private, max-age=600"})

    app.get("/clip/{token}", response_class=FileResponse)(clip)
    app.get("/browse/{key}/{number}", response_class=Response)(item)


def _build_blocks(studio: Studio) -> Any:
    with gr.Blocks(title="Timeloom studio", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("# Timeloom studio")
        with gr.Tab("Generate"):
            _generate_tab(blocks, studio)
        with gr.Tab("Compare"):
            _compare_tab(blocks, studio)
        if studio.shelf.names:
            with gr.Tab("Browse") as tab:
                _browse_tab(tab, studio)
    return blocks


def _generate_tab(blocks: gr.Blocks, studio: Studio) -> None:
    limits = studio.limits
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="a red seven moves left",
                lines=2,
                max_length=limits.max_prompt,
                autofocus=True,
            )
            with gr.Row():
                make = gr.Button("Generate", variant="primary", min_width=120)
                cancel = gr.Button("Cancel", variant="stop", min_width=120, interactive=False)
            with gr.Row():
                model = gr.Dropdown(studio.models, value=studio.models[0], label="Model", min_width=140)
                seed = gr.Textbox("0", label="Seed", placeholder="any", max_lines=1, max_length=40, min_width=140)
            with gr.Accordion("Settings; blank means the model's own", open=False):
                negative = gr.Textbox(label="Negative prompt", max_length=limits.max_prompt)
                with gr.Row():
                    steps = _number(f"Steps, 1–{limits.max_steps}")
                    guidance = _number("Guidance; 1 is off")
                    frames = _number(f"Frames, 1–{limits.max_frames}; 1 is an image")
                    sampler = gr.Dropdown(["", *SAMPLERS], value="", label="Sampler", min_width=140)
                    height = _number(f"Height, to {limits.max_side} pixels")
                    width = _number(f"Width, to {limits.max_side} pixels")
                upscale = gr.Checkbox(label=UPSCALE)
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(elem_id="result")
    gr.Markdown("## History")
    history = gr.HTML(js_on_load=ON_CLICK, elem_id="history")
    form = [prompt, negative, model, seed, steps, guidance, frames, sampler, height, width, upscale]
    shown = [result, history, cancel]

    def show(session: Session) -> list[Any]:
        newest = session.history[0] if session.history else None
        going = newest is not None and not newest.ended
        return [views.result(newest, session.ahead_of), views.history(session.history), gr.Button(interactive=going)]

    def submit(request: gr.Request, *values: Any) -> None:
        with _told_to_visitor():
            studio.generate(_visit(studio, request), dict(zip(FORM, values, strict=True)))

    def stop(request: gr.Request) -> None:
        session = _visit(studio, request)
        session.cancel(session.history)

    def act(request: gr.Request, event: gr.EventData) -> list[Any]:
        session, told = _visit(studio, request), event._data or {}
        job = session.find(str(told.get("token")))
        if told.get("action") == "reuse" and job is not None:
            return [form_values(job.request)[name] for name in FORM]
        with _told_to_visitor():
            if told.get("action") == "again":
                studio.again(session, str(told.get("token")))
            elif told.get("action") == "remove":
                session.remove(str(told.get("token")))
        return [gr.skip() for _ in FORM]

    watch = _watcher(studio, show)
    quiet = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    gr.on([make.click, prompt.submit], submit, form, **quiet).success(watch, None, shown, **quiet)
    cancel.click(stop, **quiet)
    history.click(act, None, form, **quiet).success(watch, None, shown, **quiet)
    blocks.load(watch, None, shown, **quiet)


def _compare_tab(blocks: gr.Blocks, studio: Studio) -> None:
    limits = studio.limits
    gr.Markdown(
        f"One prompt, several models, seeds or settings: give a list, with commas. All combinations, at most "
        f"{limits.max_compared}, play in step."
    )
    prompt = gr.Textbox(label="Prompt", placeholder="a red seven moves left", max_length=limits.max_prompt)
    with gr.Row():
        models = gr.Dropdown(studio.models, value=studio.models[:1], multiselect=True, label="Models", min_width=160)
        seeds = gr.Textbox(label="Seeds", value="0, 1", min_width=120)
        steps = gr.Textbox(label="Steps", placeholder="the model's, or 10, 50", min_width=120)
        guidance = gr.Textbox(label="Guidance", placeholder="the model's, or 1, 4", min_width=120)
        samplers = gr.Dropdown(list(SAMPLERS), multiselect=True, label="Samplers", min_width=160)
    with gr.Accordion("Settings for all", open=False):
        negative = gr.Textbox(label="Negative prompt", max_length=limits.max_prompt)
        frames = _number(f"Frames, 1–{limits.max_frames}; 1 is an image")
        upscale = gr.Checkbox(label=UPSCALE)
    with gr.Row():
        make = gr.Button("Compare", variant="primary", min_width=120)
        cancel = gr.Button("Cancel", variant="stop", min_width=120, interactive=False)
    board = gr.HTML(elem_id="comparison")
    form = [prompt, negative, models, seeds, steps, guidance, samplers, frames, upscale]

    def show(session: Session) -> list[Any]:
        going = any(not job.ended for job in session.comparison)
        return [views.comparison(session.comparison, session.ahead_of), gr.Button(interactive=going)]

    def submit(request: gr.Request, *values: Any) -> None:
        with _told_to_visitor():
            studio.compare(_visit(studio, request), dict(zip(COMPARED, values, strict=True)))

    def stop(request: gr.Request) -> None:
        session = _visit(studio, request)
        session.cancel(session.comparison)

    watch = _watcher(studio, show)
    quiet = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    make.click(submit, form, **quiet).success(watch, None, [board, cancel], **quiet)
    cancel.click(stop, **quiet)
    blocks.load(watch, None, [board, cancel], **quiet)


def _browse_tab(tab: gr.Tab, studio: Studio) -> None:
    names = studio.shelf.names
    with gr.Row():
        folder = gr.Dropdown(names, value=names[0], label="Folder", min_width=160)
        group = gr.Dropdown([ALL], value=ALL, label="Which", min_width=160)
        look = gr.Button("Look again", variant="primary", min_width=100)
    heading = gr.Markdown()
    board = gr.HTML(elem_id="shelf")
    with gr.Row():
        back = gr.Button("Back", min_width=100)
        on = gr.Button("On", min_width=100)
    opened, page = gr.State(None), gr.State(0)

    def open_folder(name: Any) -> list[Any]:
        with _told_to_visitor():
            key, collection = studio.shelf.open(str(name))
        choices = [(f"{group} ({count})", group) for group, count in collection.groups.items()]
        return [key, gr.Dropdown(choices, value=ALL), *turn(key, ALL, 0)]

    def turn(key: Any, group: Any, page: int) -> list[Any]:
        collection = studio.shelf.find(key)
        if collection is None:
            return [0, "Press *Look again* to open the folder.", ""]
        numbers = collection.numbers(str(group))
        last = max(0, (len(numbers) - 1) // PER_PAGE)
        page = min(max(0, page), last)
        with _told_to_visitor():
            items = [collection.item(number) for number in numbers[page * PER_PAGE :][:PER_PAGE]]
        told = f"{collection.kind.capitalize()}: {len(numbers)} of {collection.groups[ALL]}"
        told += f", page {page + 1} of {last + 1}."
        return [page, told, views.shelf(key, items)]

    quiet = {"show_progress": "minimal", "api_visibility": "private"}
    shown = [page, heading, board]
    gr.on([tab.select, look.click, folder.input], open_folder, folder, [opened, group, *shown], **quiet)
    group.input(lambda key, group: turn(key, group, 0), [opened, group], shown, **quiet)
    back.click(lambda key, group, page: turn(key, group, page - 1), [opened, group, page], shown, **quiet)
    on.click(lambda key, group, page: turn(key, group, page + 1), [opened, group, page], shown, **quiet)


def _number(label: str) -> gr.Textbox:
    """A field for a number that may be left blank; Gradio's own turns blanks into zeros."""
    return gr.Textbox(label=label, placeholder="the model's", max_lines=1, max_length=40, min_width=140)


def _visit(studio: Studio, request: gr.Request) -> Session:
    return studio.visit(request.cookies.get(COOKIE))


@contextlib.contextmanager
def _told_to_visitor() -> Iterator[None]:
    """A TimeloomError within becomes a note on the page, and ends the event."""
    try:
        yield
    except TimeloomError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _watcher(studio: Studio, show: Callable[[Session], list[Any]]) -> Callable[..., AsyncIterator[list[Any]]]:
    """A handler that shows what a visitor has, again and again for as long as anything is on its way.

    It only looks: whether anyone does, changes nothing about what is made. So a page that is loaded again goes on.
    """

    async def watch(request: gr.Request) -> AsyncIterator[list[Any]]:
        session = _visit(studio, request)
        before: list[Any] = []
        while True:
            busy = session.busy  # asked before looking: what ends in between is seen in a last round
            now = show(session)
            if repr(now) != repr(before):
                yield now  # all of it: for a gr.skip() Gradio would make, and keep, another component
            if not busy:
                return
            before = now
            await asyncio.sleep(LOOK_EVERY_S)

    return watch
