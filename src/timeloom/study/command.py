"""`timeloom study create | serve | report`: people judge pairs of videos, and a table says what they prefer."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from timeloom.errors import TimeloomError, unknown_name
from timeloom.options import parse, require_at_least

if TYPE_CHECKING:
    from timeloom.study.design import Study

USAGE = """usage: timeloom study create STUDY --systems NAME=FOLDER NAME=FOLDER      pairs of videos, blinded
       timeloom study serve STUDY                                         the page that raters see
       timeloom study report STUDY                                        what they prefer, and how sure that is
(each has --help)"""
INSTALL = "The page of a study needs FastAPI and uvicorn: pip install 'timeloom[study]'"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LINKS_SUFFICE = "links"


@dataclass(frozen=True)
class CreateOptions:
    """Make a study from folders of videos that several systems made from the same prompts."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder to make."""
    systems: tuple[str, ...]
    """NAME=FOLDER for each system; a folder alone gives its name. Raters never see the names."""
    questions: str = "latent-shift"
    """latent-shift (quality, faithfulness), videofactory (quality, text correlation, overall), or a YAML file."""
    match: Literal["auto", "prompt", "index"] = "auto"
    """How files of one prompt are found: by their prompt, or by the number their name begins with. auto: by prompt
    where every file has one."""
    prompts: Path | None = None
    """Text file of `timeloom generate --prompts`; its line i, counted from 0, is the prompt of index i."""
    allow_missing: bool = False
    """Leave out prompts that a system has no video of."""
    reference: str | None = None
    """The system that all others are compared with. Default: each with each."""
    sample: int | None = None
    """So many prompts of each comparison, drawn by the seed. Default: all."""
    raters_per_pair: int = 5
    """Votes wanted for each pair and question."""
    pairs_per_rater: int = 40
    """Pairs that one rater judges at most, attention pairs not counted."""
    attention: int = 3
    """Attention pairs for each rater: a clip beside itself, destroyed."""
    links: int | None = None
    """Raters' links to make. Default: enough for all votes, and a quarter more."""
    parameters: tuple[str, ...] = ()
    """NAME=NUMBER of parameters, such as ours=1.5B, for the ratio in the table."""
    title: str = "Which video is better?"
    """Heading of the page."""
    seed: int = 0
    """Of the prompts sampled, the order, the sides and the attention pairs."""
    overwrite: bool = False
    """Replace a study that has no votes yet. One with votes is never replaced."""
    json: bool = False
    """Print what was made as JSON."""


@dataclass(frozen=True)
class ServeOptions:
    """Serve the page of a study until Ctrl-C, or write it as a folder for another web server."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own loopback needs --auth."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    auth: str | None = None
    """NAME:PASSWORD that browsers ask for; or `links`: a rater's own link, 128 random bits, is password enough. Also
    taken from the environment: TIMELOOM_STUDY_AUTH."""
    url: str | None = None
    """What the raters' links begin with, where it is not http://HOST:PORT: https://study.example.org."""
    offline: Path | None = None
    """Write one folder with page, clips and pairs for any web server, and serve nothing. Raters send back files."""


@dataclass(frozen=True)
class ReportOptions:
    """Say what the raters prefer: report.html, report.json and table.md in the folder of the study."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study."""
    add: tuple[Path, ...] = ()
    """Files of votes that raters of an offline study sent back, or folders of them. Each vote counts once."""
    min_attention: float = 0.75
    """Share of the answers on attention pairs that must be right, else the rater is left out."""
    min_seconds: float = 1.0
    """A rater whose median answer took less is left out; seconds."""
    resamples: int = 2000
    """Bootstrap resamples for the intervals."""
    seed: int = 0
    """Of the bootstrap."""
    output: Path | None = None
    """Folder of the report. Default: the study's."""
    json: bool = False
    """Print the report as JSON in place of the table."""


def main(args: list[str]) -> int:
    """Run `timeloom study` and return its exit code."""
    commands = {"create": create, "serve": serve, "report": report}
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] not in commands:
        raise unknown_name("study command", args[0], commands)
    return commands[args[0]](args[1:])


def create(args: list[str]) -> int:
    """Run `timeloom study create`."""
    options = parse(CreateOptions, args, prog="timeloom study create")
    require_at_least(options, sample=1, raters_per_pair=1, pairs_per_rater=1, attention=0, links=1, seed=0)
    from timeloom.study.create import Settings, create_study
    from timeloom.study.questions import find_questions
    from timeloom.study.systems import match, parse_parameters, parse_systems, read_folder, read_lines

    systems = parse_systems(options.systems)
    parameters = parse_parameters(options.parameters, list(systems))
    settings = Settings(
        find_questions(options.questions),
        options.reference,
        options.sample,
        options.raters_per_pair,
        options.pairs_per_rater,
        options.attention,
        options.links,
        " ".join(options.title.split()),
        options.seed,
    )
    lines = read_lines(options.prompts) if options.prompts is not None else None
    folders = {name: read_folder(folder) for name, folder in systems.items()}
    matched, missing = match(folders, options.match, lines, options.allow_missing)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("prompts", total=None)
        study = create_study(
            options.study,
            list(systems),
            parameters,
            matched,
            missing,
            settings,
            options.overwrite,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    _say_created(options.study, study, options.json)
    return 0


def _say_created(folder: Path, study: Study, as_json: bool) -> None:
    checks = sum(pair.attention for pair in study.pairs)
    made = {
        "study": str(folder),
        "systems": [system.name for system in study.systems],
        "prompts": len(study.prompts),
        "pairs": len(study.pairs) - checks,
        "attention_pairs": checks,
        "votes_wanted": (len(study.pairs) - checks) * study.raters_per_pair * len(study.questions),
        "links": study.links,
        "pairs_per_rater": study.pairs_per_rater,
        "left_out": list(study.left_out),
    }
    if as_json:
        print(json.dumps(made, ensure_ascii=False))
        return
    for line in study.left_out:
        print(f"left out: {line}")
    print(
        f"{made['pairs']} pairs of {made['prompts']} prompts, {checks} attention pairs; {made['votes_wanted']} votes "
        f"wanted, by {study.raters_per_pair} raters a pair; {study.links} raters' links."
    )
    print(f"Next: timeloom study serve {folder}")


def serve(args: list[str]) -> int:
    """Run `timeloom study serve`."""
    options = parse(ServeOptions, args, prog="timeloom study serve")
    from timeloom.study.design import read_study
    from timeloom.study.desk import Desk
    from timeloom.study.page import write_links
    from timeloom.study.store import Store

    if options.offline is not None:
        from timeloom.study.offline import write_folder

        study = read_study(options.study)
        with Store(options.study, study) as store:
            write_folder(options.study, study, store, options.offline)
            base = (options.url or "http://127.0.0.1:8000").rstrip("/")
            links = write_links(options.study, store.do(Desk.links).result(), lambda token: f"{base}/?rater={token}")
        print(f"{options.offline}: put this folder on a web server. Raters' links, {base}/?rater=…: {links}")
        return 0
    password = check_auth(options.host, options.auth or os.environ.get("TIMELOOM_STUDY_AUTH"))
    try:
        from timeloom.study.server import listen, make_app, run
    except ImportError as error:
        raise TimeloomError(INSTALL) from error
    study = read_study(options.study)
    with listen(options.host, options.port) as listening, Store(options.study, study) as store:
        port = listening.getsockname()[1]
        base = (options.url or f"http://{_shown(options.host)}:{port}").rstrip("/")
        links = write_links(options.study, store.do(Desk.links).result(), lambda token: f"{base}/r/{token}/")

        def say() -> None:
            print(f"Serving {options.study} at http://{_shown(options.host)}:{port}/; stop with Ctrl-C.", flush=True)
            print(f"Raters' links, {base}/r/…, and completion codes: {links}", flush=True)

        run(make_app(options.study, study, store, password, say), listening)
    return 0


def check_auth(host: str, auth: str | None) -> str | None:
    """NAME:PASSWORD to ask for, or None.

    Raises:
        TimeloomError: it is neither that nor `links`, or there is none and `host` is not this machine's loopback.
    """
    if auth is None:
        if host in LOOPBACK:
            return None
        raise TimeloomError(
            f"--host {host} can be reached from other machines: give --auth NAME:PASSWORD, which browsers will ask "
            "for, or --auth links, if each rater's own link (128 random bits) is password enough."
        )
    if auth == LINKS_SUFFICE:
        return None
    name, _, password = auth.partition(":")
    if not name or len(password) < 8:
        raise TimeloomError("--auth reads NAME:PASSWORD, with a password of at least 8 characters, or links.")
    return auth


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def report(args: list[str]) -> int:
    """Run `timeloom study report`."""
    options = parse(ReportOptions, args, prog="timeloom study report")
    require_at_least(options, min_attention=0, min_seconds=0, resamples=100, seed=0)
    from rich.console import Console

    from timeloom.study.design import read_study
    from timeloom.study.offline import add_votes
    from timeloom.study.report import Rules, make_report
    from timeloom.study.report_files import print_table, write_report
    from timeloom.study.store import Store

    study = read_study(options.study)
    status = Console(stderr=True)
    with Store(options.study, study) as store:
        if options.add:
            added = add_votes(options.add, study, store)
            status.print(f"{added.votes} votes added, {added.known} known already, {len(added.refused)} refused.")
            for line in added.refused:
                status.print(f"refused: {line}", markup=False)
        rules = Rules(options.min_attention, options.min_seconds, options.resamples, options.seed)
        with status.status("resampling prompts and raters"):
            result = make_report(study, store, rules)
    output = options.output or options.study
    write_report(output, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_table(result, Console())
        print(output / "report.html")
    return 0
