"""Models in diffusers' folder format: Stable Diffusion 1.x and 2.x, LDM text2img-large, ModelScope's text-to-video."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, SchedulerMixin
from torch import nn

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.model import model_scope
from timeloom.model.parts import Model, Part
from timeloom.model_files import INDEX, read_json
from timeloom.models.text_encoders import TEXT_ENCODERS
from timeloom.models.unet import VideoUNet
from timeloom.weight_files import Stored, find_weights, read_weights

DEFAULTS = ("num_frames", "fps", "height", "width", "num_inference_steps", "guidance_scale", "sampler")
UNETS = ("UNet2DConditionModel", "VideoUNet", "UNet3DConditionModel")
FOLDERS = {"vae": ("vae", "vqvae"), "text_encoder": ("text_encoder", "bert")}
"""What Stable Diffusion and LDM text2img-large call the same part."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of an autoencoder's attention before diffusers 0.15, as the folders of 2022 still have them."""

CLIP_TOKENIZER = "openai/clip-vit-large-patch14"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
DOWNLOADS = ("model_index.json", "*/*.json", "tokenizer/*", "scheduler/*")


def find_source(name: str, variant: str | None, download: bool) -> Path:
    """The folder or file of a model: a path, a zoo name, or a Hub id, fetched where `download` allows it.

    Raises:
        TimeloomError: none of these, or a Hub id that is neither in the local cache nor within reach.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    try:
        return zoo.resolve(name)
    except TimeloomError:
        if name.count("/") != 1 or path.suffix in (".safetensors", ".ckpt"):
            raise
    return _hub_folder(name, variant, download)


def _hub_folder(name: str, variant: str | None, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = [*DOWNLOADS, *_weight_patterns("safetensors", variant)]
        folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not download))
        if download and not any(folder.glob("unet/*.safetensors")):
            wanted = [*DOWNLOADS, *_weight_patterns("bin", variant)]
            folder = Path(snapshot_download(name, allow_patterns=wanted))
        return folder
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TimeloomError(
            f"There is no folder {name!r}, and the Hub model of that name is neither in the local cache nor can it be "
            f"fetched from here. Where there is a network: hf download {name} --local-dir FOLDER; then give FOLDER."
        ) from error


def _weight_patterns(suffix: str, variant: str | None) -> list[str]:
    """The files of the networks, whole or in shards, and none of the other forms that a Hub model may have."""
    infix = f".{variant}" if variant else ""
    folders = ("unet", *FOLDERS["vae"], *FOLDERS["text_encoder"])
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    return [
        f"{folder}/{stem}{infix}{shard}.{suffix}" for folder in folders for stem in stems for shard in ("", "-*-of-*")
    ]


def find_tokenizer(name: str | None) -> Path:
    """The folder of CLIP's tokenizer: a path (or a model's, with tokenizer/ in it), a zoo name, or a Hub id.

    Raises:
        TimeloomError: none of these, or a Hub id that is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name is not None:
        with contextlib.suppress(TimeloomError):
            folder = zoo.resolve(name)
            return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    hub_id = name or CLIP_TOKENIZER
    wanted = [*TOKENIZER_FILES, *(f"tokenizer/{file}" for file in TOKENIZER_FILES)]
    for local in (True, False):
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=wanted, local_files_only=local))
        except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
        for found in (folder / "tokenizer", folder):
            if any((found / file).is_file() for file in TOKENIZER_FILES):
                return found
    raise TimeloomError(
        f"A single file has no tokenizer, and {hub_id!r} is no folder, not in the local Hub cache, and cannot be "
        f"fetched from here. Where there is a network: hf download {CLIP_TOKENIZER} {' '.join(TOKENIZER_FILES)} "
        "--local-dir FOLDER; then say --tokenizer FOLDER."
    )


def read_folder(folder: Path, variant: str | None = None, with_weights: bool = True) -> Model:
    """A diffusers folder as parts. Without weights, `Part.tensors` stays empty.

    Raises:
        TimeloomError: a model of another family, a part that is missing, or a file that cannot be read.
    """
    if not (folder / INDEX).is_file():
        raise TimeloomError(_what_it_is_instead(folder))
    index = read_json(folder / INDEX)
    _refuse_other_families(folder, index)
    vae, text = (next((name for name in names if name in index), names[0]) for names in FOLDERS.values())
    over_time = _require_class(folder, index, "unet", UNETS) == "UNet3DConditionModel"
    _require_class(folder, index, vae, ("AutoencoderKL",))
    encoder = _require_class(folder, index, text, tuple(TEXT_ENCODERS))
    scheduler = _require_class(folder, index, "scheduler", None)
    networks: dict[str, tuple[str, type[nn.Module], Callable[[str], str | None]]] = {
        "unet": ("unet", VideoUNet, model_scope.our_key if over_time else str),
        "vae": (vae, AutoencoderKL, _vae_key),
        "text_encoder": (
            text,
            TEXT_ENCODERS[encoder].network,
            _clip_key if encoder == "CLIPTextModel" else str,
        ),
    }
    parts = {name: _read_part(folder, name, *network, variant, with_weights) for name, network in networks.items()}
    if over_time:
        unet = parts["unet"]
        unet.config, unet.file_key = model_scope.unet_config(unet.config), model_scope.their_key
    used = {"unet", vae, text, "tokenizer", "scheduler"}
    beside = [name for name, value in index.items() if isinstance(value, list) and value[-1] and name not in used]
    return Model(
        parts["unet"],
        parts["vae"],
        parts["text_encoder"],
        scheduler=scheduler,
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        tokenizer=folder / "tokenizer",
        defaults={name: index[name] for name in DEFAULTS if name in index},
        left_out={"part that no video is made with": sorted(beside)} if beside else {},
    )


def _read_part(
    folder: Path,
    name: str,
    subfolder: str,
    network: type[nn.Module],
    current_key: Callable[[str], str | None],
    variant: str | None,
    with_weights: bool,
) -> Part:
    config = read_json(folder / subfolder / "config.json")
    config.pop("_name_or_path", None)
    part = Part(name, network, config, folder / subfolder)
    if not with_weights:
        return part
    stored: dict[str, Stored] = {}
    for file in find_weights(folder / subfolder, variant):
        tensors, beside = read_weights(file)
        stored |= tensors
        if beside:
            part.left_out.setdefault("no tensor", []).extend(beside)
        part.source = file
    for key, tensor in stored.items():
        if (current := current_key(key)) is None:
            part.left_out.setdefault("a constant that the network makes itself", []).append(key)
        elif current in part.tensors:
            raise TimeloomError(f"{tensor.file} holds the tensor {key!r} twice, under an old and a new name.")
        else:
            part.tensors[current] = tensor
    return part


def _vae_key(key: str) -> str:
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", key)


def _clip_key(key: str) -> str | None:
    key = key.removeprefix("text_model.")
    return None if key == "embeddings.position_ids" else key


def _require_class(folder: Path, index: dict[str, Any], part: str, known: tuple[str, ...] | None) -> str:
    """The class that the index names for a part, which must be one of `known`, or for None a scheduler."""
    entry = index.get(part)
    if not (isinstance(entry, list) and len(entry) == 2 and entry[1]):
        raise TimeloomError(f"{folder / INDEX} names no {part}: it is not the index of a Stable Diffusion model.")
    if not (folder / part).is_dir():
        raise TimeloomError(f"The model {folder} has no folder {part!r}.")
    name = str(entry[1])
    if known is None:
        found = getattr(diffusers, name, None)
        if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
            raise TimeloomError(f"{folder / INDEX} names the scheduler {name!r}, which diffusers does not have.")
    elif name not in known:
        raise TimeloomError(f"{folder / INDEX}: the {part} is of class {name!r}, and only {known[0]!r} is supported.")
    return name


def _refuse_other_families(folder: Path, index: dict[str, Any]) -> None:
    foreign = [
        name
        for name in ("transformer", "prior", "text_encoder_2", "controlnet", "motion_adapter")
        if isinstance(index.get(name), list) and index[name][-1]
    ]
    if foreign:
        raise TimeloomError(
            f"{folder / INDEX} describes a {index.get('_class_name', 'model')} with a {foreign[0]!r}: that is another "
            "family. Stable Diffusion 1.x and 2.x and LDM text2img-large can be converted."
        )


def _what_it_is_instead(folder: Path) -> str:
    names = {path.name for path in folder.iterdir()}
    if any("lora" in name for name in names) or "adapter_config.json" in names:
        return f"{folder} holds a LoRA, a change to a model, and not a model. Give the model that it was made for."
    if "config.json" in names:
        name = read_json(folder / "config.json").get("_class_name", "network")
        return f"{folder} holds one {name} alone. Give the folder above it, with {INDEX}."
    return f"{folder / INDEX} is missing: a model is a folder in Stable Diffusion format."
