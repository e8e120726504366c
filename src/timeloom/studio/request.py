"""What a visitor asks for: read from whatever a browser sent, and kept within bounds before anything is computed.

Nothing here becomes a path: a model is chosen from the names that the page offers, and all else is text and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from timeloom.errors import TimeloomError, unknown_name

SAMPLERS = ("ddpm", "ddim", "dpm-solver++", "unipc")
"""The names of `generate.schedulers`, here so that the page is up before torch is imported; a test holds them equal."""
MAX_SEED = 2**53 - 1
"""The largest whole number that a browser does not round."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for at most. A model's own defaults are always allowed."""

    max_prompt: int = 1000
    """Characters of a prompt."""
    max_frames: int = 64
    """Frames of a clip."""
    max_side: int = 512
    """Height and width in pixels, before upscaling."""
    max_upscaled_side: int = 2048
    """Height and width in pixels after upscaling, of a model's own size too."""
    max_steps: int = 250
    """Denoising steps."""
    max_compared: int = 9
    """Clips of one comparison."""
    max_waiting: int = 32
    """Clips that wait their turn, of all visitors together."""
    max_per_minute: int = 60
    """Clips that one visitor may ask for in a minute."""


@dataclass(frozen=True)
class ClipRequest:
    """One clip to make. What is None is the model's own default."""

    prompt: str
    model: str
    """One of the names that the page offers."""
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    upscale: bool = False
    """Make the frames larger once they are decoded."""

    def with_seed(self, seed: int) -> ClipRequest:
        return replace(self, seed=seed)


VARIED = ("model", "seed", "steps", "guidance", "sampler")
"""What a comparison may give several values of, in the order of its clips."""


def read_request(values: Mapping[str, Any], models: Collection[str], limits: Limits) -> ClipRequest:
    """One request from the values of a form, by the names of the fields of `ClipRequest`; blank means the default.

    Raises:
        TimeloomError: the first value that is wrong or out of bounds, by its name on the page.
    """
    return ClipRequest(
        prompt=_text("prompt", values, limits.max_prompt, needed=True),
        model=_one_of("model", values.get("model"), models) or _missing("model"),
        negative_prompt=_text("negative prompt", values, limits.max_prompt),
        seed=_whole("seed", values, 0, MAX_SEED) or 0,
        steps=_whole("steps", values, 1, limits.max_steps),
        guidance=_number("guidance", values.get("guidance"), 0, 100),
        sampler=_one_of("sampler", values.get("sampler"), SAMPLERS),
        frames=_whole("frames", values, 1, limits.max_frames),
        height=_whole("height", values, 8, limits.max_side),
        width=_whole("width", values, 8, limits.max_side),
        upscale=values.get("upscale") is True,
    )


def read_comparison(
    values: Mapping[str, Any], models: Collection[str], limits: Limits
) -> list[tuple[str, ClipRequest]]:
    """Every combination of the values given, each with what tells it from the others ("seed 3, 25 steps").

    What is in VARIED may have several values: a list, or text with commas between them.

    Raises:
        TimeloomError: as `read_request`; too many combinations.
    """
    choices = {name: _several(values.get(name)) for name in VARIED}
    count = math.prod(map(len, choices.values()))
    if count > limits.max_compared:
        told = " × ".join(f"{len(many)} {name}" for name, many in choices.items() if len(many) > 1)
        raise TimeloomError(f"That makes {count} clips ({told}), and at most {limits.max_compared} are compared.")
    compared = []
    for combination in product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        request = read_request({**values, **chosen}, models, limits)
        compared.append((describe(request, [name for name in VARIED if len(choices[name]) > 1]), request))
    return compared


def describe(request: ClipRequest, names: Collection[str]) -> str:
    """The chosen settings of a request in words; those left to the model are called its own."""
    words = []
    for name in names:
        value = getattr(request, name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(
            shown if name in ("model", "sampler") and value else f"{name} {'default' if value is None else shown}"
        )
    return ", ".join(words)


def form_values(request: ClipRequest) -> dict[str, str | bool]:
    """A request as the texts and ticks of the form that asks for it, blank for what is the model's own."""
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    return {
        name: value if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in values.items()
    }


def _several(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    many = list(dict.fromkeys(value)) if isinstance(value, list | tuple) else [value]
    return many or [None]


def _missing(name: str) -> str:
    raise TimeloomError(f"Choose a {name}.")


def _text(name: str, values: Mapping[str, Any], longest: int, needed: bool = False) -> str:
    value = values.get(name.replace(" ", "_"))
    if not isinstance(value, str | None):
        raise TimeloomError(f"The {name} must be text.")
    text = (value or "").strip()
    if needed and not text:
        raise TimeloomError('The prompt is empty. Say what the video shows, for example "a red seven moves left".')
    if len(text) > longest:
        raise TimeloomError(f"The {name} has {len(text)} characters, and at most {longest} are read.")
    return text


def _one_of(name: str, value: Any, known: Collection[str]) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or value not in known:
        raise unknown_name(name, str(value)[:80], known)
    return value


def _number(name: str, value: Any, least: float, most: float) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise TimeloomError(f"The {name} must be a number, not {str(value)[:40]!r}.")
    if not least <= number <= most:
        raise TimeloomError(f"The {name} must be from {least:g} to {most:.16g}, not {number:.16g}.")
    return number


def _whole(name: str, values: Mapping[str, Any], least: int, most: int) -> int | None:
    number = _number(name, values.get(name), least, most)
    if number is not None and number != int(number):
        raise TimeloomError(f"The {name} must be a whole number, not {number:g}.")
    return None if number is None else int(number)
