"""The `timeloom` command: finds the room of a verb, runs it, and turns errors into one sentence.

A room is imported only when its verb runs: `timeloom --help` needs neither torch nor the option parser.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from timeloom.errors import TimeloomError, unknown_name


class Verb(NamedTuple):
    """One sub-command: the module whose `main(args) -> int` runs it, and its line in the help."""

    module: str
    summary: str


VERBS = {
    "generate": Verb("timeloom.generate.command", "make videos or images from prompts"),
    "train": Verb("timeloom.train.command", "train what a recipe describes, or go on where it stopped"),
    "data": Verb("timeloom.data.command", "look at a recipe's or a folder's clips, or encode them ahead of training"),
    "curate": Verb("timeloom.curate.command", "make a training set of raw videos: scenes, captions, filters, a report"),
    "model": Verb("timeloom.model.command", "bring models from elsewhere, tell their size and cost, publish them"),
    "upscale": Verb("timeloom.upscale.command", "make a video or a picture four times larger"),
    "evaluate": Verb("timeloom.evaluate.command", "measure a model or videos by a protocol"),
    "study": Verb("timeloom.study.command", "let people judge pairs of videos, and say what they prefer"),
    "studio": Verb("timeloom.studio.command", "a web page to generate, compare and browse"),
}

ELSEWHERE = {
    ("data", "cache"): "timeloom.train.cache_command",
    ("data", "degrade"): "timeloom.train.degrade_command",
    ("evaluate", "upscaler"): "timeloom.evaluate.upscaler_command",
}
"""Commands of a verb that are another module's, some because they need more than the verb's room may know."""

EXIT_ERROR = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + 2  # SIGINT
EXIT_BROKEN_PIPE = 128 + 13  # SIGPIPE


def main(args: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 130 interrupted.

    `args` are the words after `timeloom`; None takes them from the command line. With `--debug` anywhere among them, or
    TIMELOOM_DEBUG=1 in the environment, errors keep their traceback.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args or os.environ.get("TIMELOOM_DEBUG", "0") not in ("", "0")
    args = [arg for arg in args if arg != "--debug"]
    try:
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has left. What is still buffered goes nowhere, so that the last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        if debug:
            raise
        return _stopped()
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt) and not debug:
            return _stopped()  # Ctrl-C while a class was being made: Python 3.11 makes a RuntimeError of it
        sentence = _explain(error)
        if debug or sentence is None:
            raise
        print(f"timeloom: error: {sentence}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, TimeloomError) else EXIT_ERROR


def _stopped() -> int:
    print("\ntimeloom: stopped; what was finished is kept.", file=sys.stderr)
    return EXIT_INTERRUPTED


def _dispatch(args: list[str]) -> int:
    if not args:
        print(_help(), file=sys.stderr)
        return EXIT_BAD_INPUT
    name, *rest = args
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name == "--version":
        from timeloom import __version__

        print(f"timeloom {__version__}")
        return 0
    if name.startswith("-"):
        raise unknown_name("option", name, ["--help", "--version", "--debug"])
    if name not in VERBS:
        raise unknown_name("command", name, VERBS)
    module = ELSEWHERE.get((name, *rest[:1])) or VERBS[name].module  # type: ignore[arg-type]
    return int(importlib.import_module(module).main(rest))


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: timeloom COMMAND [options]\n\n"
        "Weaves time into text-to-image diffusion: from clips to a model, and from a prompt to a video.\n\n"
        f"commands:\n{verbs}\n\n"
        "options:\n"
        "  --help     this text; after a command, the options of that command\n"
        "  --version  the version\n"
        "  --debug    show the traceback of an error (also TIMELOOM_DEBUG=1)\n\n"
        'example:\n  timeloom generate "a red seven moves left" --output seven.mp4 --seed 0'
    )


def _explain(error: Exception) -> str | None:
    """The sentence that the user needs, or None where the error is our own and the traceback is worth more."""
    if isinstance(error, TimeloomError):
        return str(error)
    causes = list(_causes(error))
    # safetensors and torch pass a full disk on in errors of their own.
    if any(
        getattr(cause, "errno", None) == errno.ENOSPC or "No space left on device" in str(cause) for cause in causes
    ):
        files = [cause.filename for cause in causes if isinstance(cause, OSError) and cause.filename]
        named = f" while writing {files[0]}" if files else ""
        return f"The disk is full{named}. Free some space and run the same command again."
    if any(isinstance(cause, ImportError | RuntimeError) and "torchvision" in str(cause) for cause in causes) and (
        importlib.util.find_spec("torchvision") is not None
    ):
        return (
            "A torchvision is installed that does not fit this torch, and it breaks other packages on import. "
            "Timeloom does not need it: pip uninstall torchvision"
        )
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main())
