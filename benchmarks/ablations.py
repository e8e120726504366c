"""The Latent-Shift paper's ablations (arXiv 2304.08477, Sec. 4.3, 4.4) at laptop size: trained, judged, written down.

python benchmarks/ablations.py --image-model runs/digits/image_fine/model
python benchmarks/ablations.py                                               # trains the image model too
python benchmarks/ablations.py --clips 3000 --prompts 32 --runs runs/trial   # a first look

One image model goes on as a video model with the shift and with attention, the same clips and seeds for both. Then
`timeloom evaluate papers` compares all of them, with their mechanism and without it, and writes its part of
docs/results.md. Each step is a `timeloom` command, printed before it runs. Stopped and started again, it goes on:
training from its last checkpoint, and what is trained or judged stays.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from timeloom import __version__, cli
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.evaluate.model import hash_model
from timeloom.generate.model_folder import find_model
from timeloom.model_files import read_json
from timeloom.options import parse, require_at_least

TITLE = "Trained alike: shift and attention from one image model"
MECHANISMS = ("shift", "attention")
FROZEN = "digits-shift"
"""Whose autoencoder and text encoder an image model is trained with here: they have seen no U-Net."""
FREE = {"seeds", "prompts", "sampler", "steps", "guidance", "batch_size", "rounds", "device", "runs", "page"}
"""Options that may change when a folder of runs goes on."""


@dataclass(frozen=True)
class Options:
    """Train, judge and compare what the Latent-Shift paper's ablations compare. Run again to go on."""

    image_model: str | None = None
    """Model that all start from; its U-Net must have seen no video. Default: trains digits/image."""
    images: int = 256_000
    """Images that the image model is trained on, where --image-model names none."""
    image_set: list[str] = field(default_factory=list)
    """Changes to the recipe digits/image, likewise: optimizer.learning_rate=5e-4."""
    clips: int = 12_000
    """Clips that each video model is trained on."""
    set: list[str] = field(default_factory=list)
    """Changes to both video recipes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training runs of each mechanism: two at least, three for the record."""
    prompts: int = 128
    """Prompts that each model is judged on."""
    sampler: str = "ddpm"
    """The same for all models, as are steps, guidance, prompts and seeds of generation."""
    steps: int = 100
    """Denoising steps."""
    guidance: float = 3.0
    """Strength of classifier-free guidance."""
    batch_size: int = 16
    """Clips denoised at once."""
    rounds: int = 30
    """How often a denoising step is timed."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes an accelerator where there is one."""
    runs: Path = Path("runs/ablations")
    """Folder of the models and of what they make."""
    page: Path = Path("docs/results.md")
    """The page to write; its pictures go into pictures/ beside it, the numbers into results/ablations.json."""


def timeloom(*words: str) -> None:
    """Run a command of Timeloom, and stop with its exit code where it fails."""
    print(f"\n$ timeloom {shlex.join(words)}", flush=True)
    if code := cli.main(list(words)):
        raise SystemExit(code)


def claim(options: Options) -> None:
    """A folder of runs belongs to one set of options.

    Raises:
        TimeloomError: it was begun with others, or the model to start from is a video model.
    """
    wanted = {name: value for name, value in asdict(options).items() if name not in FREE}
    wanted["timeloom"] = __version__
    if options.image_model:
        image = find_model(options.image_model)
        if read_json(image / "unet" / "config.json").get("temporal", "none") != "none":
            raise TimeloomError(
                f"--image-model {options.image_model} is a video model; start from one of images alone."
            )
        wanted["image_model_sha256"] = hash_model(image)
    label = options.runs / "options.json"
    if label.is_file():
        known = json.loads(label.read_text(encoding="utf-8"))
        if differ := [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]:
            raise TimeloomError(
                f"{options.runs} was begun with other options ({', '.join(differ)}). "
                "Choose another --runs, or remove it to start anew."
            )
    replace_file(label, json.dumps(wanted, indent=2).encode())


def train(recipe: str, folder: Path, device: str, changes: list[str]) -> Path:
    """The model that a recipe trains in `folder`; one that is whole stays as it is."""
    model = folder / "model"
    if not model.is_dir():  # written beside and renamed, so that it is whole where it is there
        timeloom("train", recipe, "--device", device, "--set", f"output={folder}", *changes)
    return model


def train_all(options: Options) -> None:
    """The image model, or a link to it, and of each mechanism a run for each seed."""
    if options.image_model:
        image = options.runs / "image" / "model"
        image.parent.mkdir(parents=True, exist_ok=True)
        if not image.is_symlink():
            image.symlink_to(find_model(options.image_model).resolve(), target_is_directory=True)
    else:
        budget = [f"model.vae={FROZEN}", f"model.text_encoder={FROZEN}", f"schedule.total_samples={options.images}"]
        image = train("digits/image", options.runs / "image", options.device, [*budget, *options.image_set])
    start = [f"model.{part}={image}" for part in ("vae", "text_encoder", "unet")]
    # No single frames in training: whether images survive is what the paper asks, and it trains on clips alone.
    changes = [*start, f"schedule.total_samples={options.clips}", "loss.image_share=0.0", *options.set]
    for seed in options.seeds:
        for mechanism in MECHANISMS:
            folder = options.runs / f"{mechanism}-{seed}"
            train(f"digits/video_{mechanism}", folder, options.device, [*changes, f"seed={seed}"])


def main(args: list[str]) -> int:
    """Train, judge, compare, write."""
    options = parse(Options, args, prog="python benchmarks/ablations.py")
    require_at_least(options, images=1, clips=1, prompts=8, steps=1, batch_size=1, rounds=2)
    if len(set(options.seeds)) < max(2, len(options.seeds)) or min(options.seeds) < 0:
        raise TimeloomError("--seeds needs at least two different numbers from 0 on: an interval is over the seeds.")
    claim(options)
    train_all(options)
    words = ["--models", str(options.runs), "--name", "ablations", "--title", TITLE]
    words += ["--output", str(options.runs / "judged")]
    words += ["--num-prompts", str(options.prompts), "--sampler", options.sampler, "--steps", str(options.steps)]
    words += ["--guidance", str(options.guidance), "--batch-size", str(options.batch_size), "--samplings"]
    words += ["--rounds", str(options.rounds), "--device", options.device, "--page", str(options.page)]
    timeloom("evaluate", "papers", *words)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TimeloomError as error:
        sys.exit(f"error: {error}")
