"""Publish a model folder, or an adapter, on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from timeloom.adapters import ADAPTER_FILE, Adapter, read_adapter
from timeloom.errors import TimeloomError
from timeloom.model.folder import read_folder
from timeloom.model.parts import Model, fit, on_meta, require_match
from timeloom.model_files import INDEX, first_line

CARD = "README.md"
PARTS = (INDEX, CARD, "*.json", "*.safetensors", "tokenizer/*")
"""What a model folder is made of; safetensors alone, never pickles."""

HEAD = """---
library_name: diffusers
pipeline_tag: text-to-video
tags:
- text-to-video
- timeloom
---
"""
TO_BE_COMPLETED = """
## To be completed

- Training data, and the licence that follows from it.
- What the model does well, what it cannot do, and what it must not be used for.
"""


def choose_files(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files to send, the model card among them, and of those that are no part of a model.

    Raises:
        TimeloomError: the folder is neither an adapter nor a whole model: a part or a tensor is missing, extra or of
            another shape, or weights are not in safetensors.
    """
    if adapter := _is_adapter(folder):
        read_adapter(folder)
    else:
        _read_whole(folder)
    parts = (ADAPTER_FILE, CARD) if adapter else PARTS
    names = sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file())
    files = [name for name in names if any(fnmatchcase(name, pattern) for pattern in parts)]
    return files, [name for name in names if name not in files]


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_FILE).is_file() and not (folder / INDEX).is_file()


def _read_whole(folder: Path) -> Model:
    if not folder.is_dir():
        raise TimeloomError(f"{folder} is no folder; give a model folder, such as the model/ of a training run.")
    model = read_folder(folder)
    for part in model.parts:
        if not any(part.source.parent.glob("*.safetensors")):
            raise TimeloomError(f"{part.source} is no safetensors file; timeloom model convert makes one of it.")
        fit(part, on_meta(part))
    require_match(model)
    if not (folder / "tokenizer").is_dir():
        raise TimeloomError(f"The model {folder} has no folder 'tokenizer'.")
    return model


def upload(folder: Path, files: list[str], repository: str, private: bool) -> str:
    """Send the files in one commit; the address of the repository. A missing model card is written first.

    Raises:
        TimeloomError: no login, no network, or the Hub's own reason.
    """
    from huggingface_hub import HfApi, get_token

    if repository.count("/") != 1:
        raise TimeloomError(f"A model on the Hub is called USER/NAME, not {repository!r}.")
    if get_token() is None:
        raise TimeloomError("The Hub takes models only from who is logged in: hf auth login, or set HF_TOKEN.")
    if CARD not in files:
        (folder / CARD).write_text(model_card(folder, repository), encoding="utf-8")
        print(f"{folder / CARD} is new: say in it what the model was trained on, and push again.")
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[*files, CARD],
            commit_message=f"A text-to-video {'adapter' if _is_adapter(folder) else 'model'} made with Timeloom",
        )
    except Exception as error:  # the Hub's client has an error for everything, its network library others
        raise TimeloomError(f"{repository} was not pushed: {first_line(error)}") from error
    return str(address)


def model_card(folder: Path, repository: str) -> str:
    """A card with what the folder itself tells, and the questions that it cannot answer."""
    if _is_adapter(folder):
        return _adapter_card(read_adapter(folder), repository)
    model = _read_whole(folder)
    sizes = {part.name: sum(stored.tensor.numel() for stored in part.tensors.values()) for part in model.parts}
    table = "\n".join(f"| {name} | {parameters:,} |" for name, parameters in sizes.items())
    clip = _clip(model.defaults)
    return f"""{HEAD}
# {repository.partition("/")[2]}

A text-to-video model in Stable Diffusion's folder format, made with Timeloom.
Temporal mechanism: {model.unet.config.get("temporal", "none")}. A clip, unless asked otherwise: {clip or "not said"}.

| part | parameters |
|---|---:|
{table}

    hf download {repository} --local-dir {repository.partition("/")[2]}
    timeloom generate "a prompt" --model {repository.partition("/")[2]} --output clip.mp4
{TO_BE_COMPLETED}"""


def _adapter_card(adapter: Adapter, repository: str) -> str:
    family = ", ".join(f"{option} {value}" for option, value in adapter.use.family.items())
    return f"""{HEAD}
# {repository.partition("/")[2]}

Video as an adapter, made with Timeloom: what training on clips changed in the U-Net of an image model. It goes with
any model of the same family ({family}; prediction: {adapter.use.prediction_type}).
Temporal mechanism: {adapter.use.temporal}. A clip, unless asked otherwise: {_clip(adapter.use.defaults)}.
{sum(tensor.numel() for tensor in adapter.tensors.values()):,} parameters.

    hf download {repository}
    timeloom generate "a prompt" --model IMAGE_MODEL --adapter {repository} --output clip.mp4
{TO_BE_COMPLETED}"""


def _clip(defaults: Mapping[str, Any]) -> str:
    shape = {"num_frames": "frames", "height": "pixels high", "width": "pixels wide", "fps": "frames a second"}
    return ", ".join(f"{defaults[key]:g} {what}" for key, what in shape.items() if key in defaults)
