"""Training steps of Latent-Shift: Timeloom against a plain diffusers loop that encodes frames and text on the fly.

python benchmarks/training.py --size zoo --steps 40
python benchmarks/training.py --size sd15 --frames 8 --steps 4
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from floor import machine
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from timeloom import TextToVideoPipeline
from timeloom.data import FolderSource, Window, write_video
from timeloom.device import keep_memory
from timeloom.models.unet import VideoUNet
from timeloom.options import parse
from timeloom.train.cache_command import main as fill_cache
from timeloom.train.engine import Trainer
from timeloom.train.precision import attention, precision
from timeloom.train.recipe import Recipe
from timeloom.train.tasks import build_task

PLAIN = "plain diffusers loop"
COLD = "Timeloom, nothing in the cache"
WARM = "Timeloom, all in the cache"


@dataclass(frozen=True)
class Options:
    """Time training steps on a folder of videos: each case in a process of its own, one after the other, in turns."""

    size: Literal["zoo", "sd15"] = "zoo"
    """zoo: digits-shift, 64 x 64 pixels. sd15: Stable Diffusion 1.5's networks, random weights, 256 x 256."""
    frames: int = 16
    """Frames a clip, at most 24; fewer want less memory, and all work but the optimizer's shrinks with them."""
    steps: int = 20
    """Timed steps of each case; one beforehand does not count."""
    batch_size: int = 1
    """Clips a step."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of both."""
    gradient_checkpointing: bool = False
    """Of both."""
    rounds: int = 2
    """How often each case takes its turn."""
    output: Path | None = None
    """JSON file. Default: benchmarks/results/training_SIZE.json."""


@dataclass(frozen=True)
class Job:
    """What a case's process is told."""

    folder: Path
    options: Options
    window: Window

    def recipe(self, output: str, cache: bool) -> Recipe:
        model, options = str(self.folder / "model"), self.options
        samples = options.batch_size * (options.steps + 1)
        data = {"source": "folder", "path": str(self.folder / "clips"), "num_frames": self.window.num_frames}
        size = {"height": self.window.height, "width": self.window.width, "validation_clips": 1}
        return Recipe.model_validate(
            {
                "task": "video",
                "output": str(self.folder / output),
                "data": {**data, **size, "windows": 1, "cache": cache},
                "model": {"vae": model, "text_encoder": model, "unet": model, "temporal": "shift"},
                "schedule": {
                    "total_samples": samples,
                    "batch_size": options.batch_size,
                    "log_every": options.batch_size,
                    "validate_every": 2 * samples,
                    "checkpoint_every": 2 * samples,
                },
                "ema_half_life_samples": 0,
                "precision": options.precision,
                "gradient_checkpointing": options.gradient_checkpointing,
                "workers": 1,
            }
        )


def plain(job: Job) -> list[float]:
    """Seconds of each step of a loop as a user of diffusers writes it: frames as a batch of images, all encoded."""
    options, model = job.options, job.folder / "model"
    cpu = torch.device("cpu")
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").train()
    if options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae").requires_grad_(False)
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32).requires_grad_(False)
    tokenizer = TextToVideoPipeline.from_pretrained(model).tokenizer
    schedule = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=5e-5, weight_decay=0, fused=True)
    source, seconds = FolderSource(job.folder / "clips"), []
    for step in range(options.steps + 1):
        started = time.perf_counter()
        chosen = [source[(step * options.batch_size + i) % len(source)] for i in range(options.batch_size)]
        frames = torch.from_numpy(np.concatenate([clip.draw(job.window, 0.5) for clip in chosen]))
        frames = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = tokenizer(
            [clip.caption for clip in chosen], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with precision(options.precision, cpu):
            with torch.no_grad():
                latents = vae.encode(frames).latent_dist.sample() * vae.config.scaling_factor
                text = text_encoder(tokens)[0].repeat_interleave(job.window.num_frames, dim=0)
            timesteps = torch.randint(1000, (options.batch_size,)).repeat_interleave(job.window.num_frames)
            noise = torch.randn_like(latents)
            noisy = schedule.add_noise(latents, noise, timesteps)
            predicted = unet(noisy, timesteps, encoder_hidden_states=text).sample
            loss = nn.functional.mse_loss(predicted.float(), noise.float())
        with attention(options.precision, cpu):  # recomputed as it was computed
            loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def timeloom(job: Job, warm: bool) -> list[float]:
    """Seconds of each step of `timeloom train`, without the first, the last (which saves) and its samples."""
    name = "warm" if warm else "cold"
    os.environ["TIMELOOM_CACHE"] = str(job.folder / "cache" / name / ("" if warm else str(os.getpid())))
    recipe = job.recipe(f"{name}-{os.getpid()}", cache=True)
    cpu = torch.device("cpu")
    trainer = Trainer(recipe, build_task(recipe, cpu), cpu)
    trainer._validate = trainer._save_model = lambda: None  # type: ignore[method-assign]
    trainer.checkpoints.save = lambda *_: None  # type: ignore[method-assign]
    trainer.run()
    lines = [json.loads(line) for line in (Path(recipe.output) / "stats.jsonl").read_text().splitlines()]
    return [1 / line["samples_per_s"] * job.options.batch_size for line in lines if "samples_per_s" in line][1:]


def run(case: str, job: Job) -> tuple[list[float], int]:
    """Seconds of each step of a case, and this process's peak memory in bytes."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    if case != PLAIN:
        keep_memory(torch.device("cpu"))  # as the command does
    seconds = plain(job) if case == PLAIN else timeloom(job, warm=case == WARM)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def prepare(folder: Path, options: Options) -> Job:
    """Write the model and the clips that all cases use, and fill the warm cache."""
    zoo = TextToVideoPipeline.from_pretrained("digits-shift")
    side = 64 if options.size == "zoo" else 256
    if options.size == "sd15":
        torch.manual_seed(0)
        zoo.unet = VideoUNet(
            sample_size=32, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
        zoo.vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408
        )
        zoo.text_encoder = CLIPTextModel(text)
        zoo.tokenizer.model_max_length = 77
        zoo.scheduler = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear", clip_sample=False)
    zoo.save_pretrained(folder / "model")
    (folder / "clips").mkdir()
    rng = np.random.default_rng(0)
    for number in range(options.batch_size * (options.steps + 1) + 1):  # one is held out; none comes twice
        coarse = rng.integers(0, 256, (24, 8, 8, 3), np.uint8)
        write_video(folder / "clips" / f"{number}.mp4", coarse.repeat(side // 8, 1).repeat(side // 8, 2), fps=8)
        (folder / "clips" / f"{number}.txt").write_text("a red seven moves left", encoding="utf-8")
    job = Job(folder, options, Window(options.frames, 8, side, side))
    path = folder / "recipe.json"  # JSON is YAML
    path.write_text(json.dumps(job.recipe("warm", cache=True).model_dump(mode="json")), encoding="utf-8")
    os.environ["TIMELOOM_CACHE"] = str(folder / "cache" / "warm")
    fill_cache(["cache", str(path), "--device", "cpu"])
    return job


def measure(options: Options) -> dict[str, Any]:
    """Everything, ready for JSON."""
    cases = (PLAIN, COLD, WARM)
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    peaks: dict[str, int] = dict.fromkeys(cases, 0)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(Path(folder), options)
        for _ in range(options.rounds):
            for case in cases:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    found, peak = pool.submit(run, case, job).result()
                seconds[case] += found
                peaks[case] = max(peaks[case], peak)
    medians = {case: statistics.median(found) for case, found in seconds.items()}
    return {
        "benchmark": "training",
        "size": options.size,
        "frames": options.frames,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "gradient_checkpointing": options.gradient_checkpointing,
        "steps": options.steps,
        "rounds": options.rounds,
        "machine": machine(),
        "cases": {
            case: {
                "median_s": medians[case],
                "clips_per_s": options.batch_size / medians[case],
                "times_plain": medians[PLAIN] / medians[case],
                "peak_memory_bytes": peaks[case],
            }
            for case in cases
        },
    }


def print_table(report: dict[str, Any]) -> None:
    what = f"{report['size']}, batch {report['batch_size']}, {report['frames']} frames, {report['precision']}"
    print(f"{what}, {report['machine']['processor']}")
    print(f"{'':34}{'step':>12}{'clips/s':>10}{'speed':>8}{'peak MB':>9}")
    for name, row in report["cases"].items():
        speed = f"{row['median_s'] * 1e3:>9.0f} ms{row['clips_per_s']:>10.3f}{row['times_plain']:>7.2f}x"
        print(f"{name:34}{speed}{row['peak_memory_bytes'] / 1e6:>9.0f}")


def main(args: list[str]) -> int:
    options = parse(Options, args, prog="python benchmarks/training.py")
    report = measure(options)
    print_table(report)
    output = options.output or Path(__file__).parent / "results" / f"training_{options.size}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
