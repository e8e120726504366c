"""How quickly a study acknowledges votes: fifty raters at once on one machine, none lost, none counted twice.

    python benchmarks/study.py

Starts `timeloom study serve` in a process of its own, on 127.0.0.1 alone. Each rater sends a vote, waits for its
acknowledgement, waits for `--pause` seconds (far less than a person looks at a pair), and sends the next, until all are
given. Then the votes in the file are compared with those that were acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import psutil

from timeloom.data import write_video
from timeloom.study.clips import hash_clip
from timeloom.study.design import LINKS, MEDIA, Pair, Study, System, read_study, write_study
from timeloom.study.desk import Desk
from timeloom.study.questions import PAPERS
from timeloom.study.store import Store

RESULTS = Path(__file__).parent / "results" / "study.json"
RATERS_PER_PAIR = 5
ALL_S = 300.0


def make(folder: Path, raters: int, votes: int) -> Study:
    """A study with just so many votes to give; what its one clip shows does not matter."""
    questions = PAPERS["latent-shift"]
    per_rater = votes // raters // len(questions)
    (folder / MEDIA).mkdir(parents=True)
    write_video(folder / "clip.mp4", np.zeros((2, 16, 16, 3), np.uint8))
    clip = hash_clip(folder / "clip.mp4")
    (folder / "clip.mp4").rename(folder / MEDIA / f"{clip}.mp4")
    count = raters * per_rater // RATERS_PER_PAIR
    study = Study(
        seed=0,
        questions=questions,
        systems=(System(name="a"), System(name="b")),
        prompts=tuple(f"prompt {number}" for number in range(count)),
        pairs=tuple(Pair(prompt=number, systems=(0, 1), clips=(clip, clip)) for number in range(count)),
        raters_per_pair=RATERS_PER_PAIR,
        pairs_per_rater=per_rater + 2,  # else the last pair may be left for someone who had it
        attention_per_rater=0,
        links=raters,
    )
    write_study(study, folder)
    return study


async def post(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: dict[str, Any]) -> Any:
    """One request on an open connection. Written by hand: the client must not cost more than the server."""
    reader, writer = stream
    content = json.dumps(body).encode()
    fields = ["Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    writer.write("\r\n".join([f"POST {path} HTTP/1.1", *fields, "", ""]).encode() + content)
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", answer, re.IGNORECASE)
    assert length is not None
    said = await reader.readexactly(int(length[1]))
    assert answer.startswith("HTTP/1.1 200"), said
    return json.loads(said)


async def rate(
    port: int, path: str, number: int, pause_s: float, times: list[float], given: list[tuple[str, int]]
) -> None:
    """One rater: votes until nothing is left."""
    stream = await asyncio.open_connection("127.0.0.1", port)
    browser = f"{number:024x}"
    state = await post(stream, f"{path}visit", {"browser": browser})
    while state["tasks"]:
        task = state["tasks"][0]
        vote = {"task": task["task"], "question": len(task["answered"]), "choice": "left", "milliseconds": 1000}
        began = time.perf_counter()
        state = await post(stream, f"{path}vote", {"browser": browser, **vote})
        times.append(time.perf_counter() - began)
        given.append((vote["task"], vote["question"]))
        await asyncio.sleep(pause_s)
    stream[1].close()


async def all_raters(port: int, paths: list[str], pause_s: float) -> tuple[list[float], list[tuple[str, int]]]:
    times: list[float] = []
    given: list[tuple[str, int]] = []
    raters = (rate(port, path, number, pause_s, times, given) for number, path in enumerate(paths))
    await asyncio.wait_for(asyncio.gather(*raters), ALL_S)
    return times, given


def measure(folder: Path, raters: int, votes: int, pause_s: float) -> dict[str, Any]:
    """Serve, vote, compare."""
    make(folder, raters, votes)
    command = [sys.executable, "-m", "timeloom", "study", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert said is not None
            process.stdout.readline()
            with (folder / LINKS).open(newline="") as file:
                paths = ["/r/" + row["link"].split("/r/")[1] for row in csv.DictReader(file)]
            before = sum(psutil.Process(process.pid).cpu_times()[:2])
            began = time.perf_counter()
            times, given = asyncio.run(all_raters(int(said[1]), paths, pause_s))
            wall = time.perf_counter() - began
            cpu = sum(psutil.Process(process.pid).cpu_times()[:2]) - before
        finally:
            process.kill()
    with Store(folder, read_study(folder)) as store:
        rows = store.do(lambda desk: desk.connection.execute("SELECT task, question FROM votes").fetchall()).result()
        each = store.do(
            lambda desk: desk.connection.execute("SELECT pair, count(*) FROM tasks GROUP BY pair").fetchall()
        ).result()
    kept = Counter(tuple(row) for row in rows)
    return {
        "raters": raters,
        "votes": len(times),
        "pause_s": pause_s,
        "lost": len(set(given) - set(kept)),
        "double": sum(kept.values()) - len(set(given)),
        "pairs_with_other_than_5_raters": sum(count != RATERS_PER_PAIR for _, count in each),
        "median_ms": round(1000 * median(times), 2),
        "p95_ms": round(1000 * quantiles(times, n=20)[-1], 2),
        "largest_ms": round(1000 * max(times), 2),
        "votes_per_s": round(len(times) / wall, 1),
        "server_cpu_ms_per_vote": round(1000 * cpu / len(times), 3),
    }


def commit_ms(folder: Path, count: int = 100) -> float:
    """What one commit costs on this disk: the median, in a study that nobody else uses."""
    study = make(folder, 10, 100)
    times = []
    with Store(folder, study) as store:
        store.do(Desk.links).result()
        for number in range(count):
            began = time.perf_counter()
            store.do(
                lambda desk, number=number: (
                    desk.connection.execute("INSERT INTO facts VALUES (?, '')", (str(number),)) and None
                )
            ).result()  # type: ignore[misc]
            times.append(time.perf_counter() - began)
    return round(1000 * median(times), 2)


def main(args: list[str] | None = None) -> int:
    from floor import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--votes", type=int, default=2000)
    parser.add_argument(
        "--pauses", type=float, nargs="+", default=[2.0, 0.5], help="seconds from an answer to the next vote"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(args)
    busy = psutil.cpu_percent(interval=2)
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        disk = commit_ms(Path(scratch) / "disk")
        for number, pause_s in enumerate(options.pauses):
            cases.append(measure(Path(scratch) / str(number), options.raters, options.votes, pause_s))
            print(json.dumps(cases[-1]))
    report = {"machine": machine(), "busy_before_percent": busy, "commit_ms": disk, "cases": cases}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
