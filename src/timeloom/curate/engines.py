"""Engines: the same functions over many items, on the cores of one machine or on a cluster.

An item goes through `each`, which works on it alone (a pool of processes, or Ray tasks), and then through `together`,
which takes several at once and may use an accelerator (the calling process, or Ray actors). Results come in any order,
each with the number of its item. Functions and items must be picklable; what they return is small.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from timeloom.errors import TimeloomError

Each = Callable[[Any], Any]
Together = Callable[[list[Any]], list[Any]]

ATTEMPTS = 2
"""An item whose worker dies is tried once more; a file that kills every worker must not stop the others."""
AT_ONCE = 64
"""At most so many results go into one call of `together`."""


@dataclass(frozen=True)
class Died:
    """In place of a result: the workers that were at the item died."""

    why: str


class Engine(Protocol):
    """What runs the stages."""

    def run(self, each: Each, items: Sequence[Any], together: Together | None = None) -> Iterator[tuple[int, Any]]:
        """(number of the item, result or Died), in any order."""
        ...


def make_engine(name: str, workers: int) -> Engine:
    """The engine called "process" or "ray"."""
    return RayEngine(workers) if name == "ray" else ProcessEngine(workers)


class ProcessEngine:
    """A pool of processes on this machine; with `workers` 0 everything happens in the calling process.

    A worker that dies (killed, out of memory, a decoder that crashes) is replaced, and its item tried again.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, each: Each, items: Sequence[Any], together: Together | None = None) -> Iterator[tuple[int, Any]]:
        """As `Engine.run` says."""
        if not self.workers:
            arriving: Iterator[list[tuple[int, Any]]] = ([(number, each(item))] for number, item in enumerate(items))
        else:
            arriving = _arriving(each, items, min(self.workers, len(items)))
        for results in arriving:
            if together is None:
                yield from results
                continue
            whole = [(number, result) for number, result in results if not isinstance(result, Died)]
            yield from ((number, result) for number, result in results if isinstance(result, Died))
            yield from zip([number for number, _ in whole], together([result for _, result in whole]), strict=True)


def _arriving(each: Each, items: Sequence[Any], workers: int) -> Iterator[list[tuple[int, Any]]]:
    """What the pool has finished since the last time. A thread keeps the pool busy while the caller does his part."""
    results: queue.SimpleQueue[tuple[int, Any] | BaseException | None] = queue.SimpleQueue()
    pool = _Pool(each, items, workers)
    thread = threading.Thread(target=pool.run, args=(results,), daemon=True)
    thread.start()
    try:
        open_ended = True
        while open_ended:
            batch, entry = [], results.get()
            while True:
                if isinstance(entry, BaseException):
                    raise entry
                if entry is None:
                    open_ended = False
                    break
                batch.append(entry)
                if len(batch) == AT_ONCE or results.empty():
                    break
                entry = results.get()
            if batch:
                yield batch
    finally:
        pool.stop()
        thread.join()


class _Pool:
    """Workers with one item each. Our own, because ProcessPoolExecutor gives up as a whole when one worker dies."""

    def __init__(self, each: Each, items: Sequence[Any], workers: int) -> None:
        self._each, self._items = each, items
        self._context = multiprocessing.get_context("spawn")  # threads of torch or Arrow do not survive a fork
        self._waiting = deque(range(len(items)))
        self._attempts: Counter[int] = Counter()
        self._busy: dict[Connection, tuple[Any, int]] = {}
        self._wanted = workers
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, results: queue.SimpleQueue[Any]) -> None:
        """Put every result into the queue, then None; or the error that ended the pool."""
        try:
            for _ in range(self._wanted):
                self._start()
            while self._busy and not self._stopped.is_set():
                for connection in wait(list(self._busy), timeout=0.2):
                    assert isinstance(connection, Connection)
                    self._hear(connection, results)
            results.put(None)
        except BaseException as error:
            results.put(error)
        finally:
            for connection, (process, _) in self._busy.items():
                process.terminate()
                process.join()
                connection.close()

    def _start(self) -> None:
        if not self._waiting:
            return
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._each), daemon=True)
        process.start()
        theirs.close()
        number = self._waiting.popleft()
        self._busy[ours] = process, number
        with contextlib.suppress(BrokenPipeError):  # it died already: _hear finds out
            ours.send(self._items[number])

    def _hear(self, connection: Connection, results: queue.SimpleQueue[Any]) -> None:
        process, number = self._busy[connection]
        try:
            result = connection.recv()
        except (EOFError, ConnectionResetError):
            del self._busy[connection]
            connection.close()
            process.join()
            self._attempts[number] += 1
            if self._attempts[number] < ATTEMPTS:
                self._waiting.appendleft(number)
            else:
                results.put((number, Died(f"its worker died {ATTEMPTS} times ({_cause(process.exitcode)})")))
            self._start()
            return
        results.put((number, result))
        if self._waiting:
            number = self._waiting.popleft()
            self._busy[connection] = process, number
            with contextlib.suppress(BrokenPipeError):
                connection.send(self._items[number])
        else:
            del self._busy[connection]
            connection.close()  # which the worker takes as the end
            process.join()


def _serve(connection: Connection, each: Each) -> None:
    """A worker: one item after the other, until the other end is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the caller, who ends us
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(each(connection.recv()))


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"


class RayEngine:
    """Ray Data, on the cluster that RAY_ADDRESS names or else on this machine (the extra `ray`).

    All machines must see the files and the output folder under the same paths.
    """

    BLOCKS = 1000
    """At most so many tasks: what a dying machine takes with it is done again, and is at most a block."""

    def __init__(self, workers: int) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise TimeloomError("--engine ray needs Ray: pip install 'timeloom[ray]'.") from error
        self._ray, self.workers = ray, max(1, workers)

    def run(self, each: Each, items: Sequence[Any], together: Together | None = None) -> Iterator[tuple[int, Any]]:
        """As `Engine.run` says. Ray tries again by itself what a dying worker was at."""
        if not self._ray.is_initialized():
            cores = None if os.environ.get("RAY_ADDRESS") else self.workers + (together is not None)
            self._ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        rows = [{"number": number, "item": item} for number, item in enumerate(items)]
        data: Any = self._ray.data.from_items(rows, override_num_blocks=max(1, min(len(rows), self.BLOCKS)))
        data = data.map(_OnRow(each), max_retries=ATTEMPTS)
        if together is not None:
            accelerators = self._ray.cluster_resources().get("GPU", 0)
            data = data.map_batches(
                _OnBatch,
                fn_constructor_args=(together,),
                batch_size=AT_ONCE,
                concurrency=max(1, int(accelerators)),
                num_gpus=1 if accelerators else 0,
            )
        for row in data.iter_rows():
            yield int(row["number"]), row["item"]


class _OnRow:
    """A function of an item as one of a row."""

    def __init__(self, each: Each) -> None:
        self._each = each

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "item": self._each(row["item"])}


class _OnBatch:
    """A function of several items as one of a batch of rows. An actor: what it loads, it loads once."""

    def __init__(self, together: Together) -> None:
        self._together = together

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        found = self._together(list(batch["item"]))
        items = np.empty(len(found), dtype=object)
        items[:] = found
        return {"number": batch["number"], "item": items}
