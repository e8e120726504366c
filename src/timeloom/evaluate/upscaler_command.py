"""`timeloom evaluate upscaler MODEL RECIPE`: an upscaler beside bicubic, on held-out clips made worse and smaller.

timeloom evaluate upscaler digits-upscaler digits/upscaler
timeloom evaluate upscaler runs/clips/upscaler/model clips/upscaler --set data.path=my-clips --json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from timeloom.device import choose_device, choose_dtype
from timeloom.errors import TimeloomError
from timeloom.options import parse, require_at_least

if TYPE_CHECKING:
    from timeloom.data.clip import ClipSource, Frames, Window
    from timeloom.data.sources import DataOptions
    from timeloom.upscale.degrader import Degrader
    from timeloom.upscaler import Upscaler

SHEET_CLIPS = 6
METRICS = ("psnr", "ssim", "flicker")


@dataclass(frozen=True)
class Options:
    """Measure an upscaler on a recipe's held-out clips, degraded as the recipe says, beside bicubic."""

    model: Annotated[str, tyro.conf.Positional]
    """A model of the zoo, a model folder, or a file of RCAN weights."""
    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe of an upscaler, a file or a packaged name: its held-out clips and its degradations."""
    set: list[str] = field(default_factory=list)
    """Changes to the recipe, in YAML: --set data.path=my-clips degradation.h264=1."""
    frames: int = 8
    """Frames of each clip; at least 2, for flicker."""
    fps: float = 8.0
    """Frames a second."""
    seed: int = 0
    """Of the degradations: clip i gets what (seed, i) draws."""
    self_ensemble: bool = False
    """Let the network give the mean over each frame's eight turned and mirrored copies."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the network computes in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto takes an accelerator where there is one."""
    output: Path | None = None
    """PNG to write: frames as bicubic makes them, as the network does, and as they were. Default: none."""
    overwrite: bool = False
    """Replace an existing output."""
    json: bool = False
    """Print the result as JSON in place of the table: dB, similarity in 0 … 1, levels of Y of 255."""


@dataclass(frozen=True)
class Judged:
    """One clip: what it went through, and how well each way of enlarging it did."""

    key: str
    degradation: dict[str, Any]
    own_flicker: float
    """Of the small frames, in levels of Y; NaN where all moves."""
    scores: dict[str, dict[str, float]]
    """By way of enlarging, then by metric."""
    sheet: list[Frames]
    """The first frame, each way, and as it was."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate upscaler`."""
    options = parse(Options, args[1:], prog="timeloom evaluate upscaler")
    require_at_least(options, frames=2, seed=0)
    if not 0 < options.fps <= 1000:
        raise TimeloomError(f"--fps must be above 0 and at most 1000, not {options.fps:g}.")
    from timeloom.data.write import check_output
    from timeloom.tensor_cache import fingerprint
    from timeloom.upscaler import Upscaler

    if options.output is not None:
        check_output(options.output, options.overwrite)
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    upscaler = Upscaler.from_pretrained(options.model, device, dtype, self_ensemble=options.self_ensemble)
    data, seed, degrader = _read_recipe(options, upscaler)
    judged, missing = _judge_all(options, data, seed, degrader, upscaler)
    result = {
        "model": options.model,
        "weights": fingerprint(upscaler.network),
        "recipe": options.recipe,
        "data": data.model_dump(mode="json"),
        "split_seed": seed,
        "degradation": degrader.options.model_dump(mode="json"),
        "protocol": {"frames": options.frames, "fps": options.fps, "height": data.height, "width": data.width}
        | {"scale": upscaler.scale, "border": upscaler.scale, "channel": "Y", "seed": options.seed}
        | {"self_ensemble": options.self_ensemble},
        **summarise(judged),
        "missing": missing,
        "clips": [{"key": j.key, "own_flicker": j.own_flicker, **j.scores, **j.degradation} for j in judged],
    }
    if options.output is not None:
        from timeloom.data import write_contact_sheet

        titles = [f"{j.key}: " + ", ".join(f"{way} {s['psnr']:.2f} dB" for way, s in j.scores.items()) for j in judged]
        strips = [_as_clip(j.sheet) for j in judged[:SHEET_CLIPS]]
        title = "bicubic | network | original"
        write_contact_sheet(options.output, strips, titles[:SHEET_CLIPS], title=title, overwrite=True)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _as_clip(images: list[Frames]) -> Any:
    import numpy as np

    return np.stack(images)


def _read_recipe(options: Options, upscaler: Upscaler) -> tuple[DataOptions, int, Degrader]:
    """The clips, the seed of their split, and what is done to them."""
    from diffusers import AutoencoderKL

    from timeloom import recipes, zoo
    from timeloom.data.sources import DataOptions
    from timeloom.network_files import load_network
    from timeloom.schema import check, read_yaml
    from timeloom.upscale.degradation import DegradationOptions
    from timeloom.upscale.degrader import Degrader

    path = recipes.find(options.recipe)
    raw = read_yaml(path, options.set)
    data = check(DataOptions, raw.get("data", {}), path)
    for name, side in (("height", data.height), ("width", data.width)):
        if side % upscaler.scale:
            raise TimeloomError(f"data.{name}: {side} pixels do not divide by the scale {upscaler.scale} of the model.")
    degradation = check(DegradationOptions, raw.get("degradation", {}), path)
    vae = None
    if degradation.autoencoder:
        folder = zoo.resolve(str(raw.get("model", {}).get("vae") or ""))
        vae = load_network(AutoencoderKL, folder / "vae").to(upscaler.network.device)
    return data, raw.get("seed", 0), Degrader(degradation, upscaler.scale, vae)


def _judge_all(
    options: Options, data: DataOptions, seed: int, degrader: Degrader, upscaler: Upscaler
) -> tuple[list[Judged], dict[str, str]]:
    """What is found of each held-out clip, and why which of them are left out."""
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from timeloom.data.clip import Window
    from timeloom.data.sources import open_sources

    held_out = open_sources(data, seed)[1]
    window = Window(options.frames, options.fps, data.height, data.width)
    judged: list[Judged] = []
    missing: dict[str, str] = {}
    for index in track(range(len(held_out)), "clips", console=Console(stderr=True)):
        draw = int(np.random.default_rng([options.seed, index]).integers(2**62))
        try:
            judged.append(judge(held_out, index, window, degrader, draw, upscaler))
        except TimeloomError as error:
            missing[held_out[index].key] = str(error)
            print(f"{held_out[index].key} is left out: {error}", file=sys.stderr)
    if not judged:
        raise TimeloomError("None of the held-out clips can be judged.")
    return judged, missing


def judge(source: ClipSource, index: int, window: Window, degrader: Degrader, seed: int, upscaler: Upscaler) -> Judged:
    """Degrade one clip, enlarge it both ways, and compare with what it was."""
    import torch

    from timeloom.evaluate.metrics.fidelity import flicker, psnr, ssim
    from timeloom.upscaler import bicubic, to_bytes

    clip = source[index]
    wanted = clip.draw(window, 0.5)
    degradation = degrader.sample(seed)
    device = upscaler.network.device
    large = torch.from_numpy(wanted).to(device).permute(0, 3, 1, 2).float() / 255
    small = degrader.degrade(large, degradation)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "bicubic": lambda: bicubic(small, upscaler.scale),
        "network": lambda: upscaler(small),
    }
    scores, first, own = {}, [], 0.0
    for way, enlarge in ways.items():
        made = to_bytes(enlarge())
        change = flicker(made, to_bytes(small))
        own = change.own
        scores[way] = {
            "psnr": float(psnr(made, wanted, upscaler.scale).mean()),
            "ssim": float(ssim(made, wanted, upscaler.scale).mean()),
            "flicker": change.value,
        }
        first.append(made[0])
    return Judged(clip.key, degradation.to_json(), own, scores, [*first, wanted[0]])


def summarise(judged: list[Judged]) -> dict[str, Any]:
    """Each metric of each way over all clips that have it, and of the small frames their own flicker."""
    import numpy as np

    from timeloom.evaluate.metrics import FeatureSet, find_metric

    told: dict[str, Any] = {}
    for way in judged[0].scores:
        told[way] = {}
        for name in METRICS:
            values = {j.key: j.scores[way][name] for j in judged}
            finite = {key: value for key, value in values.items() if np.isfinite(value)}
            why = "all of it moves" if name == "flicker" else "equals the original"
            missing = {key: why for key in values.keys() - finite.keys()}
            table = np.array(list(finite.values()))[:, None]
            features = FeatureSet(list(finite), lambda places, table=table: table[places], missing)  # type: ignore[misc]
            told[way][name] = find_metric(name).measure(features).to_json() if finite else None
    own = [j.own_flicker for j in judged if np.isfinite(j.own_flicker)]
    return {**told, "own_flicker": float(np.mean(own)) if own else None}


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['model']}: {len(result['clips'])} held-out clips of {result['recipe']}, degraded")
    for heading in ("", "PSNR, dB", "SSIM", "flicker, levels"):
        table.add_column(heading, justify="right" if heading else "left")
    for way in ("bicubic", "network"):
        values = [result[way][name]["value"] if result[way][name] else float("nan") for name in METRICS]
        table.add_row(way, f"{values[0]:.2f}", f"{values[1]:.4f}", f"{values[2]:.2f}")
    own = result["own_flicker"]
    table.add_row("small frames", "", "", "" if own is None else f"{own:.2f}")
    Console().print(table)
