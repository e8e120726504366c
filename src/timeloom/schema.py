"""YAML files as typed options. What a key means stands with its field; a wrong one is told the nearest known name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from timeloom.errors import TimeloomError, unknown_name


class Schema(BaseModel):
    """A group of options. An unknown key is an error, and options do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_changes(overrides: list[str]) -> dict[str, Any]:
    """Options from `key.subkey=value` words, whose values are YAML.

    Raises:
        TimeloomError: a word that is none.
    """
    raw: dict[str, Any] = {}
    _change(raw, overrides)
    return raw


AnySchema = TypeVar("AnySchema", bound=Schema)


def read_yaml(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """A YAML mapping, with `key.subkey=value` overrides whose values are YAML.

    Raises:
        TimeloomError: the file cannot be read, is no mapping, or an override has no place in it.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TimeloomError(f"{path} is not readable as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise TimeloomError(f"{path}: a mapping of options is expected here.")
    _change(raw, overrides or [])
    return raw


def _change(raw: dict[str, Any], overrides: list[str]) -> None:
    for override in overrides:
        dotted, equals, value = override.partition("=")
        if not equals:
            raise TimeloomError(f"A change reads key.subkey=value, not {override!r}.")
        *groups, key = dotted.split(".")
        target = raw
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise TimeloomError(f"{dotted}: {group} is not a group of options.")
        try:
            target[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
            raise TimeloomError(f"{dotted}={value}: the value is no YAML ({problem}); put texts in quotes.") from error


def check(schema: type[AnySchema], raw: dict[str, Any], path: Path) -> AnySchema:
    """`raw`, read from `path`, as a `schema`.

    Raises:
        TimeloomError: the first problem, with the file and the option.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        where = f"{path}: {'.'.join(location) + ': ' if location else ''}"
        if first["type"] == "extra_forbidden":
            group: Any = schema
            for part in location[:-1]:
                group = group.model_fields[part].annotation
                group = next((kind for kind in get_args(group) if hasattr(kind, "model_fields")), group)  # X | None
            raise TimeloomError(f"{where}{unknown_name('option', location[-1], group.model_fields)}") from error
        raise TimeloomError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error
