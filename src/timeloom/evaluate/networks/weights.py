"""Where a network's weights are looked for, whether they are the published ones, and how they get into our modules.

Looked for in this order: the path that is given, the folder that TIMELOOM_WEIGHTS names, the caches of the Hugging Face
Hub and of torch.hub. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.extractor import Source
from timeloom.evaluate.networks.torchscript import is_torchscript, read_torchscript
from timeloom.weight_files import Stored, read_weights, usable

FOLDER = "TIMELOOM_WEIGHTS"
"""The variable that names a folder of weights."""

_COUNTER = ".num_batches_tracked"
"""Counts training steps, which matter to nobody; files of before 2018 have none."""

Layout = Callable[[str], str]
"""The name in a file of a tensor, by its name in our module."""


@dataclass(frozen=True)
class KnownFile:
    """A file that people have."""

    name: str
    origin: str
    """Where it is published."""
    size: int | None = None
    """Bytes, where known."""
    sha256: str | None = None
    hub: str | None = None
    """A Hub repository whose cache may hold it under the same name."""

    def __str__(self) -> str:
        facts = [f"{self.size / 1e6:.1f} MB"] if self.size else []
        facts += [f"sha256 {self.sha256}"] if self.sha256 else []
        return f"{self.name} ({', '.join([*facts, self.origin])})"


def find_file(network: str, known: Sequence[KnownFile], chosen: Path | None = None) -> Path:
    """The file of weights: `chosen` where it is given (a file of any name, or a folder with a known one), or a place.

    Raises:
        TimeloomError: there is none; says which files would do, their sizes, and where they were looked for.
    """
    if chosen is not None:
        path = chosen.expanduser()
        places = [path / file.name for file in known] if path.is_dir() else [path]
    else:
        places = list(_places(known))
    if (found := next((place for place in places if place.is_file()), None)) is not None:
        return found
    folders = [str(chosen)] if chosen is not None else _folders()
    raise TimeloomError(
        f"The weights of {network} are not here, and nothing is downloaded. One of these files is needed: "
        f"{'; '.join(map(str, known))}. Looked for in {', '.join(folders)}. Put one there, or give its path."
    )


def _folders() -> list[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    own = os.environ.get(FOLDER)
    return [
        f"the folder {own} ({FOLDER})" if own else f"the folder that {FOLDER} names (it is not set)",
        f"the Hub's cache {HF_HUB_CACHE}",
        str(Path(torch.hub.get_dir()) / "checkpoints"),
    ]


def _places(known: Sequence[KnownFile]) -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache

    if own := os.environ.get(FOLDER):
        yield from (Path(own).expanduser() / file.name for file in known)
    for file in known:
        if file.hub and isinstance(cached := try_to_load_from_cache(file.hub, file.name), str):
            yield Path(cached)
    yield from (Path(torch.hub.get_dir()) / "checkpoints" / file.name for file in known)


def check_hash(path: Path, known: Sequence[KnownFile]) -> Source:
    """The file with its hash, which is that of the published file of the same name, where that is known.

    Raises:
        TimeloomError: it is another, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TimeloomError(f"{path} cannot be read: {error}") from error
    published = next((file for file in known if file.name == path.name), None)
    if published and published.sha256 and found != published.sha256:
        raise TimeloomError(
            f"{path} has {path.stat().st_size} bytes and sha256 {found}, which is not the published {published}: it is "
            "damaged, cut short or something else. Fetch it again; weights of your own need another name."
        )
    return Source(path, found)


def read_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a .safetensors file, a state dict (.pt, .pth, .bin, .ckpt), or a TorchScript archive.

    Raises:
        TimeloomError: none of these, damaged, or a pickle that asks to run code.
    """
    if path.suffix != ".safetensors" and is_torchscript(path):
        return read_torchscript(path)
    return read_weights(path)[0]


def same_names(key: str) -> str:
    """The layout of files whose names are ours."""
    return key


def load_into(
    network: nn.Module, name: str, tensors: Mapping[str, Stored], path: Path, layouts: Sequence[Layout] = (same_names,)
) -> None:
    """Put the tensors into `network` as fp32; every one of them, and no other. It may have been made on "meta".

    Raises:
        TimeloomError: the file is that of another network, of another layout, or has values that are not finite.
    """
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)}
    offered = {key for key in tensors if not key.endswith(_COUNTER)}
    layout = max(layouts, key=lambda names: len(offered.intersection(map(names, own))))
    wanted = {layout(key): value.shape for key, value in own.items()}
    missing = [key for key in wanted if key not in offered]
    strange = sorted(offered - set(wanted))
    misshapen = [
        f"{key} {tuple(tensors[key].tensor.shape)} in place of {tuple(shape)}"
        for key, shape in wanted.items()
        if key in offered and tensors[key].tensor.shape != shape
    ]
    if missing or strange or misshapen:
        complaints = [
            f"{what} {len(items)} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"
            for what, items in (("missing", missing), ("unknown", strange), ("of another shape", misshapen))
            if items
        ]
        raise TimeloomError(
            f"{path} does not hold the {len(wanted)} tensors of {name}: {', '.join(complaints)}. Give the file of that "
            "network."
        )
    values = {key: usable(tensors[layout(key)], torch.float32) for key in own}
    network.load_state_dict(values, strict=True, assign=True)
