"""The papers' ablations at laptop size: trained, judged, written down.

python benchmarks/ablations.py --image-model runs/digits/image_fine/model
python benchmarks/ablations.py --paper videofactory --image-model runs/digits/image_fine/model
python benchmarks/ablations.py                                               # trains the image model too
python benchmarks/ablations.py --clips 3000 --prompts 32 --runs runs/trial   # a first look

One image model goes on as a video model with each mechanism that a paper compares (ablation_studies.py), the same clips
and seeds for all. Then all make videos, or images, for the same prompts. Each step is a `timeloom` command,
printed before it runs. Stopped and started again, it goes on: training from its last checkpoint, and what is trained or
judged stays. At the end come the page, its pictures, and a JSON file with every number.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from ablation_studies import IMAGE_MODEL, STUDIES, Arm, Case, Study
from ablations_page import compare, draw_pictures, write_page

from timeloom import TextToVideoPipeline, __version__, cli
from timeloom.data.write import replace_file
from timeloom.device import choose_device
from timeloom.errors import TimeloomError
from timeloom.evaluate.command import hash_model
from timeloom.generate.model_folder import find_model
from timeloom.model_files import read_json
from timeloom.options import parse, require_at_least

FROZEN = "digits-shift"
"""Whose autoencoder and text encoder an image model is trained with here: they have seen no U-Net."""
FREE = {"seeds", "batch_size", "device", "runs", "page", "results"}
"""Options that may change when a folder of runs goes on."""


@dataclass(frozen=True)
class Options:
    """Train, judge and compare what a paper's ablations compare. Run again to go on."""

    paper: Literal["latent-shift", "videofactory"] = "latent-shift"
    """Latent-Shift (arXiv 2304.08477, Sec. 4.3, 4.4) or VideoFactory (arXiv 2305.10874, Tab. 2)."""
    image_model: str | None = None
    """Model that all start from; its U-Net must have seen no video. Default: trains digits/image."""
    images: int = 256_000
    """Images that the image model is trained on, where --image-model names none."""
    image_set: list[str] = field(default_factory=list)
    """Changes to the recipe digits/image, likewise: optimizer.learning_rate=5e-4."""
    clips: int = 12_000
    """Clips that each video model is trained on, in both phases together where there are two."""
    set: list[str] = field(default_factory=list)
    """Changes to all video recipes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training runs of each model: two at least, three for the record."""
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
    page: Path | None = None
    """The page to write; its pictures go into pictures/ beside it. Default: docs/results.md, or the paper's own."""
    results: Path | None = None
    """Every number, as JSON. Default: in benchmarks/results."""

    @property
    def study(self) -> Study:
        """What is compared."""
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


def train_all(options: Options) -> dict[str, list[Path]]:
    """{model: a folder for each seed}; of the image model there is one."""
    if options.image_model:
        image = find_model(options.image_model)
    else:
        budget = [f"model.vae={FROZEN}", f"model.text_encoder={FROZEN}", f"schedule.total_samples={options.images}"]
        image = train("digits/image", options.folder / "image", options.device, [*budget, *options.image_set])
    models: dict[str, list[Path]] = {IMAGE_MODEL: [image]}
    # No single frames in training: whether images survive is what the paper asks, and it trains on clips alone.
    common = ["loss.image_share=0.0", *options.set]
    for seed in options.seeds:
        for arm in options.study.arms:
            begin = models[arm.begins][-1] if arm.begins else image
            start = [f"model.{part}={begin}" for part in ("vae", "text_encoder", "unet")]
            budget = [f"schedule.total_samples={clips_of(arm, options)}", f"seed={seed}"]
            folder = options.folder / f"{arm.name.replace(',', '').replace(' ', '-')}-{seed}"
            changes = [*start, *common, *arm.changes, *budget]
            models.setdefault(arm.name, []).append(train(arm.recipe, folder, options.device, changes))
    return models


def clips_of(arm: Arm, options: Options) -> int:
    """Clips that an arm is trained on: half of them where it is one of two phases."""
    phases = {other.begins for other in options.study.arms} | {None}
    return options.clips // 2 if arm.begins or arm.name in phases else options.clips


def judged_folder(options: Options, case: Case, run: int) -> Path:
    seed = "" if case.model == IMAGE_MODEL else f"-{options.seeds[run]}"
    return options.folder / "judged" / f"{case.slug}{seed}"


def judge(options: Options, case: Case, run: int, model: Path) -> dict[str, Any]:
    """What `timeloom evaluate` says of one model; what is judged stays as it is."""
    folder = judged_folder(options, case, run)
    if not (folder / "result.json").is_file():
        words = ["--model", str(model), "--output", str(folder), "--num-prompts", str(options.prompts)]
        words += ["--sampler", options.sampler, "--steps", str(options.steps), "--guidance", str(options.guidance)]
        words += ["--batch-size", str(options.batch_size), "--device", options.device]
        words += ["--frames", "1"] if case.kind == "images" else []
        timeloom("evaluate", *words, *(["--without-temporal"] if case.without else []))
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def time_steps(models: dict[str, list[Path]], options: Options) -> dict[str, Any]:
    """Parameters of each U-Net that is timed, and seconds of a denoising step with guidance, the models in turn."""
    kept = options.folder / "steps.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    device = choose_device(options.device)
    steps, found = {}, {}
    for mechanism in dict.fromkeys(options.study.timed):
        pipe = TextToVideoPipeline.from_pretrained(models[mechanism][0]).to(device)
        unet, sides = pipe.unet, (pipe.config.height // 8, pipe.config.width // 8)
        latents = torch.randn(2, pipe.config.num_frames, unet.config.in_channels, *sides, device=device)
        steps[mechanism] = _step(unet, latents, pipe.encode_text(["", "a red seven moves left"]).to(device))
        found[mechanism] = {"parameters": sum(p.numel() for p in unet.parameters()), "step_s": []}
    with torch.inference_mode():
        for turn in range(options.rounds + 2):  # the first two warm up
            for mechanism, step in steps.items():
                began = time.perf_counter()
                step()
                if turn > 1:
                    found[mechanism]["step_s"].append(time.perf_counter() - began)
    replace_file(kept, json.dumps(found, indent=2).encode())
    return found


def _step(unet: Any, latents: torch.Tensor, text: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        unet(latents, 500, text)
        if latents.device.type != "cpu":
            torch.accelerator.synchronize()

    return step


def training_of(folder: Path) -> dict[str, Any]:
    """The recipe of a run, and its held-out loss at the end."""
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    return {"folder": folder.name, "held_out_loss": losses[-1], "recipe": recipe}


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were made on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"processor": processor, "threads": torch.get_num_threads(), "device": accelerator}


def version() -> str:
    """Timeloom's, with the commit where this is a checkout, and PyTorch's."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    said = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    commit = f" ({said.stdout.strip()})" if said.returncode == 0 else ""
    return f"Timeloom {__version__}{commit}, PyTorch {torch.__version__}"


def main(args: list[str]) -> int:
    """Train, judge, compare, write."""
    options = parse(Options, args, prog="python benchmarks/ablations.py")
    require_at_least(options, images=1, clips=1, prompts=8, steps=1, batch_size=1, rounds=2)
    if len(set(options.seeds)) < max(2, len(options.seeds)) or min(options.seeds) < 0:
        raise TimeloomError("--seeds needs at least two different numbers from 0 on: an interval is over the seeds.")
    study = options.study
    claim(options)
    models = train_all(options)
    judged = {
        case.name: [judge(options, case, run, model) for run, model in enumerate(models[case.model])]
        for case in study.cases
    }
    report = {
        "command": shlex.join(["python", "benchmarks/ablations.py", *args]),
        "machine": machine(choose_device(options.device)),
        "version": version(),
        "options": json.loads((options.folder / "options.json").read_text(encoding="utf-8")) | {"seeds": options.seeds},
        "image_model": {"name": options.image_model, "sha256": hash_model(models[IMAGE_MODEL][0])},
        "training": {arm.name: [training_of(model.parent) for model in models[arm.name]] for arm in study.arms},
        "steps": time_steps(models, options),
        "judged": judged,
        "comparisons": compare(study, judged),
    }
    page = options.page or Path(study.page)
    results = options.results or Path("benchmarks/results") / f"{study.name}.json"
    folders = {case.name: judged_folder(options, case, 0) for case in study.cases}
    draw_pictures(study, folders, page.parent / "pictures")
    replace_file(results, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    write_page(study, report, page)
    print(f"\n{page}\n{results}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TimeloomError as error:
        sys.exit(f"error: {error}")
