"""The protocols that Timeloom measures by, one YAML file each; what a key means stands in protocol.py."""

from __future__ import annotations

from pathlib import Path

from timeloom.errors import unknown_name

PROTOCOLS = Path(__file__).parent


def names() -> list[str]:
    """Names of the packaged protocols, such as "msrvtt-one", sorted."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def find(name_or_path: str | Path) -> Path:
    """The file of a protocol: a packaged one by its name, else a path that exists.

    Raises:
        TimeloomError: neither; the nearest name is suggested.
    """
    if str(name_or_path) in names():
        return PROTOCOLS / f"{name_or_path}.yaml"
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    raise unknown_name("protocol", str(name_or_path), names())
