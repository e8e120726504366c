"""The papers' ablations at laptop size, trained, judged, written down.

Latent-Shift's (arXiv 2304.08477, Sec. 4.3, 4.4) and VideoFactory's (arXiv 2305.10874, Tab. 2).

python benchmarks/ablations.py --image-model runs/digits/image_fine/model
python benchmarks/ablations.py --paper videofactory --image-model runs/digits/image_fine/model
python benchmarks/ablations.py                                               # trains the image model too
python benchmarks/ablations.py --clips 3000 --prompts 32 --runs runs/trial   # a first look

One image model goes on as a video model with each mechanism that a paper compares (ablation_studies.py), the same
clips and seeds for all. Then `timeloom evaluate papers` compares them, with their mechanism and without it, and writes
its part of docs/results.md. Each step is a `timeloom` command, printed before it runs. Stopped and started again, it
goes on: training from its last checkpoint, and what is trained or judged stays.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ablation_studies import STUDIES, Arm, Study

from timeloom import __version__, cli
from timeloom.data.write import replace_file
from timeloom.errors import TimeloomError
from timeloom.evaluate.model import hash_model
from timeloom.generate.model_folder import find_model
from timeloom.model_files import read_json
from timeloom.options import parse, require_at_least

FROZEN = "digits-shift"
"""Whose autoencoder and text encoder an image model is trained with here: they have seen no U-Net."""
FREE = {"seeds", "prompts", "sampler", "steps", "guidance", "batch_size", "rounds", "device", "runs", "page"}
"""Options that may change when a folder of runs goes on."""


@dataclass(frozen=True)
class Options:
    """Train, judge and compare what a paper's ablations compare. Run again to go on."""

    paper: Literal["latent-shift", "videofactory"] = "latent-shift"
    """Whose ablations."""
    image_model: str | None = None
    """Model that all start from; its U-Net must have seen no video. Default: trains digits/image."""
    images: int = 256_000
    """Images that the image model is trained on, where --image-model names none."""
    image_set: list[str] = field(default_factory=list)
    """Changes to the recipe digits/image, likewise: optimizer.learning_rate=5e-4."""
    clips: int = 12_000
    """Clips that each video model is trained on; the two phases of one have half of them each."""
    set: list[str] = field(default_factory=list)
    """Changes to all video recipes."""
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
    runs: Path | None = None
    """Folder of the models and of what they make. Default: runs/ablations or runs/ablations_videofactory."""
    page: Path = Path("docs/results.md")
    """The page to write; its pictures go into pictures/ beside it, the numbers into results/ beside it."""

    @property
    def study(self) -> Study:
        """What is trained."""
        return STUDIES[self.paper]

    @property
    def folder(self) -> Path:
        """Of the runs."""
        return self.runs or Path("runs") / self.study.name


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
    label = options.folder / "options.json"
    if label.is_file():
        known = json.loads(label.read_text(encoding="utf-8"))
        if differ := [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]:
            raise TimeloomError(
                f"{options.folder} was begun with other options ({', '.join(differ)}). "
                "Choose another --runs, or remove it to start anew."
            )
    replace_file(label, json.dumps(wanted, indent=2).encode())


def train(recipe: str, folder: Path, device: str, changes: list[str]) -> Path:
    """The model that a recipe trains in `folder`; one that is whole stays as it is."""
    model = folder / "model"
    if not model.is_dir():  # written beside and renamed, so that it is whole where it is there
        timeloom("train", recipe, "--device", device, "--set", f"output={folder}", *changes)
    return model


def train_image(options: Options) -> Path:
    """The image model that all start from, or a link to it."""
    if options.image_model is None:
        budget = [f"model.vae={FROZEN}", f"model.text_encoder={FROZEN}", f"schedule.total_samples={options.images}"]
        return train("digits/image", options.folder / "image", options.device, [*budget, *options.image_set])
    image = options.folder / "image" / "model"
    image.parent.mkdir(parents=True, exist_ok=True)
    if not image.is_symlink():
        image.symlink_to(find_model(options.image_model).resolve(), target_is_directory=True)
    return image


def train_all(options: Options) -> list[Path]:
    """Every arm's runs, one a seed; the folders of those that are compared, the image model's among them."""
    image, study = train_image(options), options.study
    compared = [image.parent]
    # No single frames in training: whether images survive is what the paper asks, and it trains on clips alone.
    common = ["loss.image_share=0.0", *options.set]
    for seed in options.seeds:
        models: dict[str | None, Path] = {None: image}
        for arm in study.arms:
            start = [f"model.{part}={models[arm.begins]}" for part in ("vae", "text_encoder", "unet")]
            budget = [f"schedule.total_samples={clips_of(arm, study, options.clips)}", f"seed={seed}"]
            run = options.folder / f"{arm.slug}-{seed}"
            models[arm.name] = train(arm.recipe, run, options.device, [*start, *common, *arm.changes, *budget])
            if not study.is_phase(arm):
                compared.append(run)
    return compared


def clips_of(arm: Arm, study: Study, clips: int) -> int:
    """Half of them where it is one of two phases."""
    return clips // 2 if arm.begins or study.is_phase(arm) else clips


def main(args: list[str]) -> int:
    """Train, judge, compare, write."""
    options = parse(Options, args, prog="python benchmarks/ablations.py")
    require_at_least(options, images=1, clips=1, prompts=8, steps=1, batch_size=1, rounds=2)
    if len(set(options.seeds)) < max(2, len(options.seeds)) or min(options.seeds) < 0:
        raise TimeloomError("--seeds needs at least two different numbers from 0 on: an interval is over the seeds.")
    claim(options)
    runs = train_all(options)
    words = ["--models", *map(str, runs), "--name", options.study.name, "--title", options.study.title]
    words += ["--output", str(options.folder / "judged")]
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
