"""Command-line options as dataclass fields: each exists once, and the docstring under it is its help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from timeloom.errors import TimeloomError

Options = TypeVar("Options")


def parse(options: type[Options], args: Sequence[str], prog: str, description: str | None = None) -> Options:
    """Fill the dataclass `options` from the words `args` of a command line.

    A field `num_frames` is the option `--num-frames`; a boolean is a flag without a value (`--overwrite`, or
    `--no-preview` where the default is true); a field of type `tyro.conf.Positional[T]` is a word without a name.
    `prog` is what the user typed ("timeloom generate"); `description` opens the help, by default the class's docstring.

    Raises:
        SystemExit: code 0 after printing the help for `--help`; code 2 for an unknown option, with the nearest known
            one, or for a value that does not fit.
    """
    import tyro  # here, so that `timeloom --help` need not wait for it

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
    return tyro.cli(options, args=list(args), prog=prog, description=description, config=config)


def require_at_least(options: Any, **least: float) -> None:
    """Raise TimeloomError for the first field of `options` that is set and below its `least` value."""
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise TimeloomError(f"--{name.replace('_', '-')} must be at least {smallest}, not {value}.")
