"""What every reader of model folders shares: the index, the names of files, and libraries that keep quiet."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from timeloom.errors import TimeloomError
from timeloom.models.text_encoders import TEXT_ENCODERS, TextEncoder

INDEX = "model_index.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of files that can run code when they are loaded."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; TimeloomError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TimeloomError(f"{path} is missing: a model is a folder in Stable Diffusion format.") from error
    except (OSError, ValueError) as error:
        raise TimeloomError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TimeloomError(f"{path} must hold a JSON object.")
    return content


def fetched(repository: str) -> Path | None:
    """The folder of a repository of the Hub, "USER/NAME", whose files are in the local cache already; else None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def text_encoder_of(folder: Path, index: dict[str, Any]) -> TextEncoder:
    """The classes of the text encoder that the index names; TimeloomError where it is of another family."""
    entry = index["text_encoder"]
    name = str(entry[-1] if isinstance(entry, list) and entry else entry)
    if name not in TEXT_ENCODERS:
        raise TimeloomError(f"{folder / INDEX} names the text encoder {name!r}; known are {', '.join(TEXT_ENCODERS)}.")
    return TEXT_ENCODERS[name]


def hash_text_encoder(folder: Path) -> str:
    """SHA-256 over a model folder's text encoder: its weights, and the vocabulary of its tokenizer."""
    weights = sorted((folder / "text_encoder").glob("*.safetensors"))
    total = hashlib.sha256()
    for path in (*weights, *sorted((folder / "tokenizer").glob("tokenizer.json"))):
        with path.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def load_tokenizer(kind: TextEncoder, folder: str | Path) -> Any:
    """The tokenizer in `folder`; TimeloomError where its files are missing or damaged."""
    try:
        return kind.tokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise TimeloomError(f"Cannot load the tokenizer in {folder}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a library's error says, without its advice."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the progress bars and warnings of diffusers and transformers back: what matters is raised as an error."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, progress_bar) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if progress_bar:
                library.enable_progress_bar()
