"""Networks that metrics look through, each behind the same small contract: clips in, one row of features an item out.

Their weights are files that people have; nothing here downloads, and nothing in a file is run.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom.errors import TimeloomError, unknown_name

if TYPE_CHECKING:
    from timeloom.evaluate.networks.extractor import Extractor

NETWORKS = {
    "i3d": "timeloom.evaluate.networks.i3d:load_i3d",
    "inception": "timeloom.evaluate.networks.inception:load_inception",
    "c3d": "timeloom.evaluate.networks.c3d:load_c3d",
    "clip": "timeloom.evaluate.networks.clip:load_clip",
    "digits-video": "timeloom.evaluate.networks.digits:load_digits_video",
    "digits-image": "timeloom.evaluate.networks.digits:load_digits_image",
    "digits-text-video": "timeloom.evaluate.networks.digits:load_digits_text_video",
}
"""Module and loader of each; a new network is a file and a line here."""


def load_extractor(name: str, **options: Any) -> Extractor:
    """A network by its name, with the options of its loader: `weights`, `device`, `batch_size`, and its own.

    Raises:
        TimeloomError: an unknown name or option, or weights that are not there or are another's.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    from timeloom.model_files import quiet_libraries

    module, _, loader = NETWORKS[name].partition(":")
    try:
        load = getattr(importlib.import_module(module), loader)
    except ModuleNotFoundError as error:
        raise TimeloomError(f"The network {name} is not part of this installation ({error}).") from error
    known = [*inspect.signature(load).parameters, "device", "batch_size"]
    if strange := [option for option in options if option not in known]:
        raise unknown_name(f"option of the network {name}", strange[0], set(known) - {"options"})
    if isinstance(options.get("weights"), str):
        options["weights"] = Path(options["weights"])
    with quiet_libraries():
        extractor = load(**options)
    if extractor.name != name:
        raise TimeloomError(f"{NETWORKS[name]} gives the network {extractor.name!r}, not {name!r}.")
    return extractor
