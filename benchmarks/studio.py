"""The studio page under use: how soon it is there, how fast it answers while clips are made, whether memory grows.

    python benchmarks/studio.py --clips 50 --steps 2

One visitor without a browser asks for clip after clip, as the page's script does, while another opens the page again
and again. Memory is the server's resident set, read after each clip.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from floor import machine

PROMPT = "a red seven moves left"
LOOK_EVERY_S, PAUSE_S = 0.5, 0.25
"""Between two pages, and two clips: the page answers an address at most 100 times in 10 s."""


class Visitor:
    """One visitor: a cookie, and the two calls of Gradio's queue."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._word = f"bench{time.monotonic_ns()}"

    def get(self, path: str) -> bytes:
        with self._opener.open(self._address + path, timeout=120) as answer:
            return answer.read()

    def call(self, event: int, values: list[Any]) -> list[Any]:
        """Run an event of the page to its end and return the last values that it showed."""
        body = json.dumps({"fn_index": event, "data": values, "session_hash": self._word}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._address}/gradio_api/queue/join", body, headers)
        self._opener.open(request, timeout=120).read()
        shown: list[Any] = []
        with self._opener.open(
            f"{self._address}/gradio_api/queue/data?session_hash={self._word}", timeout=300
        ) as events:
            for line in events:
                message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return message["output"].get("data") or shown
                if message.get("msg") == "process_generating":
                    shown = message["output"]["data"]
        raise RuntimeError("the stream ended before the event did")


def find_events(visitor: Visitor) -> tuple[int, int]:
    """The events that ask for a clip, and that follow it, by what they take and show."""
    config = json.loads(visitor.get("/config"))
    history = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "history")
    ask = next(event["id"] for event in config["dependencies"] if len(event["inputs"]) == 11)
    follow = next(event["id"] for event in config["dependencies"] if history in event["outputs"])
    return ask, follow


def resident_mib(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", told)[0]) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(clips: int, steps: int, frames: int) -> dict[str, Any]:
    """Start a studio, use it, and end it."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "timeloom", "studio", "--port", "0", "--max-per-minute", "100000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.findall(r"http://\S+", server.stdout.readline())[0]
        listening_s = time.perf_counter() - started
        visitor = Visitor(address)
        visitor.get("/")
        page_s, page_cpu_s = time.perf_counter() - started, cpu_s(server.pid)
        visitor.get("/ready")
        ask, follow = find_events(visitor)
        usable_s, usable_cpu_s = time.perf_counter() - started, cpu_s(server.pid)
        waits: list[float] = []
        over = threading.Event()

        def look() -> None:
            other = Visitor(address)
            while not over.wait(LOOK_EVERY_S):
                began = time.perf_counter()
                other.get("/")
                waits.append(time.perf_counter() - began)

        looking = threading.Thread(target=look)
        looking.start()
        memory, seconds = [], []
        for seed in range(clips):
            began = time.perf_counter()
            visitor.call(ask, [PROMPT, "", "digits-shift", str(seed), str(steps), "", str(frames), "", "", "", False])
            shown = visitor.call(follow, [])
            assert "/clip/" in str(shown), shown
            seconds.append(time.perf_counter() - began)
            memory.append(resident_mib(server.pid))
            time.sleep(PAUSE_S)
        over.set()
        looking.join()
        waits.sort()
        return {
            "start_to_listening_s": listening_s,
            "start_to_first_page_s": page_s,
            "start_to_first_page_cpu_s": page_cpu_s,
            "start_to_usable_s": usable_s,
            "start_to_usable_cpu_s": usable_cpu_s,
            "answers": len(waits),
            "answer_median_s": statistics.median(waits),
            "answer_p95_s": waits[int(0.95 * len(waits))],
            "answer_worst_s": waits[-1],
            "clips": clips,
            "clip_median_s": statistics.median(seconds),
            "memory_mib": [round(value, 1) for value in memory],
        }
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2, help="denoising steps a clip")
    parser.add_argument("--frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "studio.json")
    options = parser.parse_args()
    result = {
        "machine": machine(),
        "steps": options.steps,
        "frames": options.frames,
        **measure(options.clips, options.steps, options.frames),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
