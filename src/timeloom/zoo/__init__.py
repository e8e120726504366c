"""The small models that come with the package, each a folder in Stable Diffusion format."""

from __future__ import annotations

import os
from pathlib import Path

from timeloom.errors import TimeloomError, unknown_name

ZOO = Path(__file__).parent
DEFAULT = "digits-shift"
"""The model that commands take where none is named."""


def names() -> list[str]:
    """Names of the models in the zoo, sorted."""
    return sorted(index.parent.name for index in ZOO.glob("*/model_index.json"))


def generators() -> list[str]:
    """Names of those that make videos from text: the default one, then the others, sorted."""
    found = [name for name in names() if (ZOO / name / "unet").is_dir()]
    return sorted(found, key=lambda name: (name != DEFAULT, name))


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model, given its zoo name ("digits-shift") or its path.

    A zoo name goes before a folder of the same name in the working directory; `./digits-shift` means the folder.

    Raises:
        TimeloomError: neither a zoo name nor a folder; a name gets the nearest one suggested.
    """
    name = str(name_or_path)
    if name in names():
        return ZOO / name
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise TimeloomError(f"{name} is a file. A model is a folder with model_index.json, unet/, vae/ and the rest.")
    if os.sep in name:
        raise TimeloomError(f"There is no model folder {name}.")
    raise unknown_name("model", name, names())
