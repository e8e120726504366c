"""A model from elsewhere becomes a Timeloom model folder, every tensor accounted for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch

from timeloom.data.whole_file import open_to_others
from timeloom.errors import TimeloomError
from timeloom.model.parts import Fit, Model, Part, fit, on_meta, require_match
from timeloom.model_files import INDEX, load_tokenizer, quiet_libraries
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.weight_files import usable


@dataclass(frozen=True)
class PartReport:
    """What became of one network's tensors. Counts of tensors, but for the parameters."""

    part: str
    network: str
    dtypes: list[str]
    parameters: int
    taken: int
    added: int
    """By the temporal mechanism."""
    added_parameters: int
    initialised_to_zero: int
    """Of those added."""
    initialised_at_random: int
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names in the source, by reason."""


@dataclass(frozen=True)
class Report:
    """What a conversion did."""

    source: str
    destination: str
    temporal: str
    parts: list[PartReport]
    left_out: dict[str, list[str]]
    """What belongs to none of the parts, by reason."""


def convert(
    model: Model,
    source: Path,
    destination: Path,
    temporal: dict[str, Any],
    defaults: dict[str, Any],
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Report:
    """Write `model`, read from `source`, as the folder `destination`: whole, or not at all.

    Args:
        temporal: options of `VideoUNet` that are to differ from the model's own; `temporal` among them. Those of `swap`
            are added to the model's.
        defaults: of generation, for model_index.json, in place of the model's own.
        dtype: of the weights; None keeps each as it is stored.
        overwrite: replace a model folder that exists.
        seed: of what the temporal mechanism starts with.

    Raises:
        TimeloomError: the destination is taken, a tensor is missing, extra, of another shape or not finite, or the
            parts do not fit each other.
    """
    if model.tokenizer is None:
        raise ValueError("a model is written with its tokenizer")
    if temporal["temporal"] == "swap":
        temporal = {**temporal, "swap": {**(model.unet.config.get("swap") or {}), **temporal.get("swap", {})}}
    changes = {part.name: temporal if part is model.unet else {} for part in model.parts}
    networks = {part.name: on_meta(part, **changes[part.name]) for part in model.parts}
    fits = {part.name: fit(part, networks[part.name]) for part in model.parts}
    require_match(model)
    with new_folder(destination, source, overwrite) as folder:
        reports = []
        for part in model.parts:
            network = networks.pop(part.name)
            reports.append(_write_part(folder, part, network, fits[part.name], dtype, seed))
        _write_tokenizer(folder / "tokenizer", model, model.tokenizer)
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler_config(model))
        _write_json(folder / INDEX, _index(model, defaults, reports))
    return Report(str(source), str(destination), temporal["temporal"], reports, model.left_out)


def _write_part(folder: Path, part: Part, network: Any, fit: Fit, dtype: torch.dtype | None, seed: int) -> PartReport:
    state = {key: usable(part.tensors[key], dtype) for key in fit.taken}
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    added = _initialised(network, fit.added, seed)
    main_dtype = max((tensor.dtype for tensor in state.values()), key=lambda kind: kind.itemsize)
    state |= {key: tensor.to(dtype or main_dtype) for key, tensor in added.items()}
    network.load_state_dict(state, strict=True, assign=True)
    with quiet_libraries():
        network.save_pretrained(folder / part.name)
    zero = sum(not tensor.any() for tensor in added.values())
    return PartReport(
        part=part.name,
        network=type(network).__name__,
        dtypes=dtypes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        taken=len(fit.taken),
        added=len(added),
        added_parameters=sum(tensor.numel() for tensor in added.values()),
        initialised_to_zero=zero,
        initialised_at_random=len(added) - zero,
        left_out=part.left_out,
    )


def _initialised(network: Any, added: list[str], seed: int) -> dict[str, torch.Tensor]:
    """First values of the tensors that the temporal mechanism adds, as its own constructor sets them."""
    if not added:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(network).from_config(network.config).state_dict()
    return {key: fresh[key].clone() for key in added}


def _write_tokenizer(folder: Path, model: Model, source: Path) -> None:
    with quiet_libraries():
        tokenizer = load_tokenizer(TEXT_ENCODERS[model.text_encoder.network.__name__], source)
    words = on_meta(model.text_encoder).config.vocab_size
    if len(tokenizer) > words:
        raise TimeloomError(
            f"The tokenizer in {source} knows {len(tokenizer)} words, and the text encoder of "
            f"{model.text_encoder.source} only {words}: it is another model's."
        )
    if model.padding is not None:
        tokenizer.pad_token = model.padding
    tokenizer.save_pretrained(folder)


def _scheduler_config(model: Model) -> dict[str, Any]:
    return {
        "_class_name": model.scheduler,
        "_diffusers_version": diffusers.__version__,
        **{key: value for key, value in model.scheduler_config.items() if not key.startswith("_")},
    }


def _index(model: Model, defaults: dict[str, Any], reports: list[PartReport]) -> dict[str, Any]:
    """model_index.json, as TextToVideoPipeline writes it."""
    pixels = 2 ** (len(model.vae.config["block_out_channels"]) - 1)
    size = model.unet.config.get("sample_size") or 64
    height, width = (size, size) if isinstance(size, int) else size
    own = {"num_frames": 16, "fps": 8.0, "height": height * pixels, "width": width * pixels}
    text = model.text_encoder.network.__name__
    return {
        "_class_name": "TextToVideoPipeline",
        "_diffusers_version": diffusers.__version__,
        **dict(sorted({**own, **model.defaults, **defaults}.items())),
        "scheduler": ["diffusers", model.scheduler],
        "text_encoder": [TEXT_ENCODERS[text].library, text],
        "tokenizer": ["transformers", TEXT_ENCODERS[text].tokenizer.__name__],
        "unet": ["diffusers", "UNet2DConditionModel"],  # any tool loads the folder: its weights fit both classes
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_destination(destination: Path, source: Path, overwrite: bool) -> None:
    """Raise TimeloomError where `destination` cannot be written without harm to something else."""
    if not destination.exists() and not destination.is_symlink():
        return
    if not destination.is_dir():
        raise TimeloomError(f"{destination} is a file; a model is a folder.")
    if not overwrite:
        raise TimeloomError(f"{destination} exists and is kept. Use --overwrite to replace it, or another name.")
    if source.resolve().is_relative_to(destination.resolve()):
        raise TimeloomError(f"{destination} holds the source itself, {source}; choose another destination.")
    if not (destination / INDEX).is_file() and any(destination.iterdir()):
        raise TimeloomError(f"{destination} is no model folder (it has no {INDEX}), and so it is not replaced.")


@contextlib.contextmanager
def new_folder(destination: Path, source: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill; it takes its place when the block ends well, and is gone when it does not."""
    check_destination(destination, source, overwrite)
    destination = destination.resolve()
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name[:64]}.", suffix=".part"))
    except OSError as error:
        raise TimeloomError(f"{destination} cannot be written ({error.strerror}).") from error
    try:
        folder = temporary / "model"  # made by mkdir: with the permissions that the user's folders have
        folder.mkdir()
        yield folder
        open_to_others(folder)
        if destination.exists():
            os.rename(destination, temporary / "replaced")
        os.rename(folder, destination)
    finally:
        if (temporary / "replaced").exists() and not destination.exists():
            os.rename(temporary / "replaced", destination)
        shutil.rmtree(temporary, ignore_errors=True)
