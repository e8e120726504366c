"""`timeloom model`: bring a model from elsewhere into Timeloom's format, tell its size and cost, and publish it.

timeloom model convert v1-5-pruned.safetensors sd15-shift --temporal shift
timeloom model merge sd15 runs/motion/adapter sd15-motion
timeloom model diff sd15 sd15-tuned motion.safetensors
timeloom model info digits-shift
timeloom model info --config ldm-text2img-large --temporal attention
timeloom model info --config modelscope --temporal swap --frames 16 --height 192 --width 344
timeloom model push runs/video/model me/my-model --private
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from timeloom import options as command_options
from timeloom.errors import TimeloomError, unknown_name
from timeloom.schema import read_changes

if TYPE_CHECKING:
    from timeloom.model.parts import Model

USAGE = """usage: timeloom model convert SRC DST --temporal shift      an image model becomes a video model
       timeloom model merge MODEL ADAPTER DST                a model with an adapter folded into its weights
       timeloom model diff BASE TUNED ADAPTER                what training changed in a model, as an adapter
       timeloom model info MODEL                             parameters, operations and memory
       timeloom model push FOLDER USER/NAME                  publish a model on the Hugging Face Hub

timeloom model VERB --help says more."""

MAX_FRAMES = 1024


@dataclass(frozen=True)
class ConvertOptions:
    """Turn a Stable Diffusion model into a video model: a folder that generate and train read. Every tensor of the
    source is taken, or named with the reason why not."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """A diffusers folder (of ModelScope's text-to-video too), a Hub id, a zoo name, or a single-file checkpoint
    (.safetensors, .ckpt) of SD 1.x or 2.x."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Folder to write."""
    temporal: str = "shift"
    """What lets frames see each other: shift (Latent-Shift), attention (Latent-VDM), swap (VideoFactory), or none."""
    shift_fraction: float | None = None
    """Share of the channels that the shift takes from each neighbouring frame. Default: the model's, or 0.25."""
    shift_placement: str | None = None
    """residual_end (as the paper draws it) or residual_start. Default: the model's, or residual_end."""
    swap: list[str] = field(default_factory=list)
    """Options of swap, in YAML: --swap queries=none window=[8,8,8]. Default: the model's, or VideoFactory's."""
    num_frames: int | None = None
    """Frames of a clip that generation makes unless told otherwise. Default: the model's, or 16."""
    fps: float | None = None
    """Frames a second of the clips that it is for. Default: the model's, or 8."""
    height: int | None = None
    """Height in pixels that generation makes unless told otherwise. Default: the model's."""
    width: int | None = None
    """Width in pixels, likewise."""
    dtype: Literal["fp16", "bf16", "fp32"] | None = None
    """Numbers that the weights are stored in. Default: as they are."""
    variant: str | None = None
    """Of a diffusers folder: fp16 takes the files *.fp16.safetensors."""
    tokenizer: str | None = None
    """For a single file, which has none: a folder with CLIP's vocabulary, or a Hub id.
    Default: openai/clip-vit-large-patch14."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """For a single file of SD 2.x: v_prediction for the 768-pixel models, epsilon for the 512-pixel base models."""
    seed: int = 0
    """Of what the temporal mechanism starts with, where it adds tensors that are not zero."""
    overwrite: bool = False
    """Replace a model folder at DST."""
    json: bool = False
    """Print the report as JSON."""


@dataclass(frozen=True)
class MergeOptions:
    """Fold an adapter into a model: a whole model folder, with the temporal mechanism that the adapter goes with."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A diffusers folder of Stable Diffusion 1.x or 2.x, a Hub id, or a zoo name."""
    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """The adapter's .safetensors file, or its folder."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Folder to write."""
    scale: float = 1.0
    """How much of the adapter; 0 leaves the weights as they are."""
    dtype: Literal["fp16", "bf16", "fp32"] | None = None
    """Numbers that the weights are stored in. Default: as they are."""
    variant: str | None = None
    """fp16 takes the model's files *.fp16.safetensors."""
    overwrite: bool = False
    """Replace a model folder at DST."""
    json: bool = False
    """Print the report as JSON."""


@dataclass(frozen=True)
class DiffOptions:
    """Write what training changed in a U-Net, weight by weight, as an adapter for other models of its family."""

    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The model that training began with: a folder, a Hub id, or a zoo name."""
    tuned: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TUNED")]
    """The model that came of it; its temporal mechanism and defaults go into the adapter."""
    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """The .safetensors file to write."""
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Numbers that the differences are stored in."""
    overwrite: bool = False
    """Replace a file at ADAPTER."""


@dataclass(frozen=True)
class InfoOptions:
    """Tell a model's parameters, operations and memory. Nothing is computed and no weights are read."""

    model: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="MODEL")] = None
    """A zoo name, a model folder, a single-file checkpoint, or a Hub id in the local cache."""
    config: str | None = None
    """A well-known model in place of MODEL, without its weights: sd15, sd21, ldm-text2img-large or modelscope."""
    temporal: str | None = None
    """Ask about another temporal mechanism than the model's: none, shift, attention, swap."""
    swap: list[str] = field(default_factory=list)
    """Options of swap, in YAML: --swap queries=none. Default: the model's, or VideoFactory's."""
    frames: int | None = None
    """Frames of a clip. Default: the model's, or 16."""
    height: int | None = None
    """Height in pixels. Default: the model's."""
    width: int | None = None
    """Width in pixels. Default: the model's."""
    steps: int | None = None
    """Denoising steps. Default: the model's, or 50."""
    guidance: float | None = None
    """Above 1, each step predicts twice. Default: the model's, or 7.5."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Numbers that the networks compute in."""
    json: bool = False
    """Print everything as JSON; FLOPs are operations, memory is bytes."""


@dataclass(frozen=True)
class PushOptions:
    """Publish a model folder, or an adapter's, on the Hugging Face Hub, after checking that it is whole. Needs a login:
    hf auth login."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A model folder, or the adapter/ of a run. Where it has no README.md, a model card is written into it for you to
    complete."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Model repository on the Hub; made where there is none, added to where there is one."""
    private: bool = False
    """Where the repository is made: for your eyes only."""
    dry_run: bool = False
    """Check the model and list what would be sent; send and write nothing."""


def main(args: list[str]) -> int:
    """Run `timeloom model` and return its exit code."""
    verb, *rest = args or [""]
    if verb == "convert":
        return convert(command_options.parse(ConvertOptions, rest, prog="timeloom model convert"))
    if verb == "merge":
        return merge(command_options.parse(MergeOptions, rest, prog="timeloom model merge"))
    if verb == "diff":
        return diff(command_options.parse(DiffOptions, rest, prog="timeloom model diff"))
    if verb == "info":
        return info(command_options.parse(InfoOptions, rest, prog="timeloom model info"))
    if verb == "push":
        return push(command_options.parse(PushOptions, rest, prog="timeloom model push"))
    if verb and not verb.startswith("-"):
        raise unknown_name("model command", verb, ["convert", "merge", "diff", "info", "push"])
    print(USAGE)
    return 0 if verb else 2


def convert(options: ConvertOptions) -> int:
    """Convert, and say what became of every tensor."""
    command_options.require_at_least(options, num_frames=1, height=1, width=1)
    if options.num_frames is not None and options.num_frames > MAX_FRAMES:
        raise TimeloomError(f"--num-frames must be at most {MAX_FRAMES}, not {options.num_frames}.")
    if options.fps is not None and not (math.isfinite(options.fps) and options.fps > 0):
        raise TimeloomError(f"--fps must be above 0, not {options.fps}.")
    from timeloom.model.convert import check_destination
    from timeloom.model.convert import convert as write
    from timeloom.model.folder import find_source
    from timeloom.model.report import print_report
    from timeloom.weight_files import DTYPES

    check_destination(options.destination, Path(options.source).expanduser(), options.overwrite)
    source = find_source(options.source, options.variant, download=True)
    model = _read_for_conversion(source, options)
    temporal = {"temporal": options.temporal}
    temporal |= _given(options, "shift_fraction", "shift_placement") | _swap(options)
    defaults = _given(options, "num_frames", "fps", "height", "width")
    dtype = DTYPES[options.dtype] if options.dtype else None
    report = write(model, source, options.destination, temporal, defaults, dtype, options.overwrite, options.seed)
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        print_report(report)
    return 0


def _read_for_conversion(source: Path, options: ConvertOptions) -> Model:
    from timeloom.model.folder import find_tokenizer, read_folder
    from timeloom.model.single_file import needs_prediction_type, read_single_file

    if source.is_dir():
        for name in ("tokenizer", "prediction_type"):
            if getattr(options, name) is not None:
                raise TimeloomError(f"--{name.replace('_', '-')} is for single files; the folder {source} has its own.")
        return read_folder(source, options.variant)
    if options.variant is not None:
        raise TimeloomError(f"--variant is for folders; {source} is a single file.")
    if options.prediction_type is None and needs_prediction_type(source):
        raise TimeloomError(
            f"{source} is of Stable Diffusion 2.x, whose tensors do not tell what the network predicts. Say "
            "--prediction-type v_prediction for the 768-pixel models, or epsilon for the 512-pixel base models."
        )
    model = read_single_file(source, options.prediction_type)
    model.tokenizer = find_tokenizer(options.tokenizer)
    return model


def merge(options: MergeOptions) -> int:
    """Fold an adapter into a model."""
    if not math.isfinite(options.scale):
        raise TimeloomError(f"--scale must be a number, not {options.scale}.")
    from timeloom.adapters import read_adapter
    from timeloom.model.convert import check_destination
    from timeloom.model.merge import merge as write
    from timeloom.model.report import print_report
    from timeloom.weight_files import DTYPES

    adapter = read_adapter(options.adapter)
    for read in (Path(options.model).expanduser(), adapter.file):
        check_destination(options.destination, read, options.overwrite)
    source, model = _read_folder(options.model, options.variant)
    dtype = DTYPES[options.dtype] if options.dtype else None
    report = write(model, source, adapter, options.destination, options.scale, dtype, options.overwrite)
    if options.json:
        changed = {"adapter": str(options.adapter), "scale": options.scale, "changed": len(adapter.by_weight())}
        print(json.dumps({**asdict(report), **changed}))
    else:
        print_report(report)
        print(f"{len(adapter.by_weight())} tensors of the unet changed by {options.scale:g} x {options.adapter}.")
    return 0


def diff(options: DiffOptions) -> int:
    """Write the difference of two models as an adapter."""
    from timeloom.adapters import write_adapter
    from timeloom.model.merge import difference, parts_beside
    from timeloom.weight_files import DTYPES

    if options.adapter.suffix != ".safetensors":
        raise TimeloomError(f"{options.adapter}: an adapter is a .safetensors file.")
    if options.adapter.exists() and not options.overwrite:
        raise TimeloomError(f"{options.adapter} exists and is kept. Use --overwrite to replace it, or another name.")
    (_, base), (_, tuned) = (_read_folder(name, None) for name in (options.base, options.tuned))
    use, tensors = difference(base, tuned, DTYPES[options.dtype])
    options.adapter.parent.mkdir(parents=True, exist_ok=True)
    write_adapter(options.adapter, use, tensors, None)
    print(f"{options.adapter}: {len(tensors)} tensors, {options.adapter.stat().st_size / 2**20:.1f} MiB")
    for part in parts_beside(base, tuned):
        print(f"The {part} differs too; an adapter holds the changes of the unet alone.", file=sys.stderr)
    return 0


def _read_folder(name: str, variant: str | None) -> tuple[Path, Model]:
    from timeloom.model.folder import find_source, read_folder

    source = find_source(name, variant, download=True)
    if not source.is_dir():
        raise TimeloomError(
            f"{source} is a single file; first make a folder of it: timeloom model convert {source} DST"
        )
    return source, read_folder(source, variant)


def _swap(options: ConvertOptions | InfoOptions) -> dict[str, Any]:
    """The options of `swap` that the command changes."""
    if options.swap and options.temporal not in ("swap", None):
        raise TimeloomError(
            f"--swap has options of the mechanism swap; this is {options.temporal}. Say --temporal swap."
        )
    return {"swap": read_changes(options.swap)} if options.swap else {}


def _given(options: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def push(options: PushOptions) -> int:
    """Publish, and say what was sent."""
    from timeloom.model.push import choose_files, upload

    folder = options.model.expanduser()
    files, left_out = choose_files(folder)
    for name in files:
        print(f"{(folder / name).stat().st_size / 1e6:>10,.1f} MB  {name}")
    if left_out:
        print(f"not sent: {', '.join(left_out)}")
    if not options.dry_run:
        print(upload(folder, files, options.repository, options.private))
    return 0


def info(options: InfoOptions) -> int:
    """Describe a model."""
    command_options.require_at_least(options, frames=1, height=1, width=1, steps=1)
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise TimeloomError(f"--guidance must be a number, not {options.guidance}.")
    from timeloom.model.info import Use, describe
    from timeloom.model.report import print_description

    model, name = _open(options)
    use = Use(
        temporal=options.temporal,
        swap=_swap(options).get("swap", {}),
        num_frames=options.frames,
        height=options.height,
        width=options.width,
        steps=options.steps,
        guidance=options.guidance,
        precision=options.precision,
    )
    description = describe(model, name, use)
    if options.json:
        print(json.dumps(description))
    else:
        print_description(description)
    return 0


def _open(options: InfoOptions) -> tuple[Model, str]:
    from timeloom.model.families import known_model
    from timeloom.model.folder import find_source, read_folder
    from timeloom.model.parts import fit, on_meta
    from timeloom.model.single_file import read_single_file

    if (options.model is None) == (options.config is None):
        raise TimeloomError("Give one of the two: a model, or --config with the name of a well-known one.")
    if options.config is not None:
        return known_model(options.config), options.config
    source = find_source(str(options.model), None, download=False)
    if source.is_dir():
        return read_folder(source, with_weights=False), str(options.model)
    model = read_single_file(source, None)
    for part in model.parts:  # what is told must be there
        fit(part, on_meta(part))
    return model, str(options.model)
