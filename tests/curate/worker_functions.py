"""What worker processes do in the tests of the engines."""

import os
import signal
import time
from pathlib import Path


def square(item):
    return item * item


def with_a_sign(items):
    return [(item, len(items)) for item in items]


def die_once(folder, item):
    """The worker that gets item 5 first is killed in the middle of it."""
    mark = Path(folder) / "died"
    if item == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def die_at_five(item):
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def fail(item):
    raise ValueError("a bug")


def tell_and_wait(path, item):
    Path(path).write_text(str(os.getpid()))
    time.sleep(0.5)
    return item


class DiesOnce:
    """A stage whose worker is killed at the second source, the first time."""

    def __init__(self, each, mark):
        self.each, self.mark = each, mark

    def __call__(self, candidate):
        if candidate.path == "b.mp4" and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.each(candidate)
