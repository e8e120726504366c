"""`timeloom studio`: the web page.

timeloom studio
timeloom studio --models digits-shift runs/clips/video_64/model --browse dataset judged
"""

from __future__ import annotations

import asyncio
import getpass
import importlib.util
import ipaddress
import signal
import socket
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from timeloom import options as command_options
from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.studio.request import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

    from timeloom.studio.gate import Gate
    from timeloom.studio.opening import Opening

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Options:
    """Serve the web page: generate, compare, browse."""

    models: tuple[str, ...] = ()
    """Zoo names, folders, Hub ids in the local cache, to choose from; the first is the default. Default: the zoo's."""
    browse: tuple[Path, ...] = ()
    """Folders to look at: a curated data set, an evaluation's or training run's folder, any videos."""
    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs --auth."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    auth: Annotated[str | None, tyro.conf.arg(metavar="NAME[:PASSWORD]")] = None
    """What visitors must give; without :PASSWORD it is asked for here, so that no list of processes shows it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the networks compute in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)
    """What a visitor may ask for at most."""


def main(args: list[str]) -> int:
    """Run `timeloom studio` until Ctrl-C and return its exit code."""
    options = command_options.parse(Options, args, prog="timeloom studio")
    command_options.require_at_least(options, port=0)
    command_options.require_at_least(options.limits, **{limit.name: 1 for limit in fields(Limits)})
    models = _names(options.models or tuple(zoo.generators()))
    folders = {name: Path(path) for name, path in _names(tuple(map(str, options.browse))).items()}
    for folder in folders.values():
        if not folder.is_dir():
            raise TimeloomError(f"{folder}: there is no such folder to browse.")
    for model in models.values():
        if not (model.count("/") == 1 and not Path(model).exists()):  # a Hub id is looked for when it is asked for
            zoo.resolve(model)
    password = _password(options)
    listening = _listen(options)
    with listening:
        _serve(options, models, folders, password, listening)
    return 0


def _serve(
    options: Options,
    models: dict[str, str],
    folders: dict[str, Path],
    password: str | None,
    listening: socket.socket,
) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise TimeloomError("The studio needs Gradio: pip install 'timeloom[studio]'")
    from timeloom.studio.engine import ModelEngine
    from timeloom.studio.gate import Gate
    from timeloom.studio.opening import Opening
    from timeloom.studio.studio import Studio

    limits = options.limits
    engine = ModelEngine(models, options.device, options.precision, limits.max_upscaled_side)
    studio = Studio(engine, list(models), limits, folders)

    def build() -> FastAPI:
        from timeloom.studio.page import build_page

        return build_page(studio)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C, with nothing left behind
    try:
        opening = Opening(build)
        gate = Gate(opening, studio.sessions, password, LOOPBACK_NAMES if _is_loopback(options.host) else None)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"Timeloom studio: http://{shown}:{port}   (Ctrl-C ends it)", flush=True)
        asyncio.run(_answer(gate, opening, listening))
    except KeyboardInterrupt:
        print("The studio has ended, and what visitors made is removed.", file=sys.stderr)
    finally:
        studio.close()


async def _answer(gate: Gate, opening: Opening, listening: socket.socket) -> None:
    """Serve until a signal, or until the page turns out not to open. Raises what kept it from opening."""
    import uvicorn

    # Streams of progress are open for as long as a page is: the end does not wait for them.
    config = uvicorn.Config(gate, lifespan="off", log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    server = uvicorn.Server(config)
    page = asyncio.create_task(opening.hold())
    page.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve([listening])
    finally:
        opening.close()
    await page


def _names(paths: tuple[str, ...]) -> dict[str, str]:
    """{a short name: the path}: visitors see only the last part, or as much as it takes to tell one from another."""
    named: dict[str, str] = {}
    for path in paths:
        parts = Path(path).expanduser().resolve().parts if Path(path).exists() else Path(path).parts
        name = next(
            ("/".join(parts[-length:]) for length in range(1, len(parts)) if "/".join(parts[-length:]) not in named),
            path,
        )
        named[name] = path
    return named


def _password(options: Options) -> str | None:
    """ "name:password" of --auth, asked for where only the name is given."""
    if options.auth is None:
        if not _is_loopback(options.host):
            raise TimeloomError(f"--host {options.host} can be reached by others: give --auth NAME, and a password.")
        return None
    name, colon, password = options.auth.partition(":")
    if name and not colon and sys.stdin.isatty():
        password = getpass.getpass(f"Password for {name}: ")
    if not name or not password:
        raise TimeloomError("--auth needs a name and a password: NAME:PASSWORD, or NAME alone to be asked for it.")
    return f"{name}:{password}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(options: Options) -> socket.socket:
    """A socket on the address asked for. Raises TimeloomError where it is taken or not this machine's."""
    if options.port > 65535:
        raise TimeloomError(f"--port must be at most 65535, not {options.port}.")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]
        raise TimeloomError(
            f"Cannot listen on {options.host}, port {options.port} ({reason}). Choose another --port or --host."
        ) from error
