"""One evaluation by a protocol: from a model, or a folder of videos, to `result.json` and `report.html`.

Several processes share the generating and the features: torchrun's, those of `--shard`, or Ray's tasks. All work in one
folder, and one of them measures when the others are done.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from timeloom.device import choose_device
from timeloom.errors import TimeloomError
from timeloom.evaluate.command import Options, shard_of
from timeloom.evaluate.compare import print_table
from timeloom.evaluate.generation import generate, made_videos
from timeloom.evaluate.measuring import Means, compute, counting, measure, networks
from timeloom.evaluate.prompt_sets import NEEDED, Prompt, PromptSet, read_prompts
from timeloom.evaluate.protocol import Protocol, load_protocol
from timeloom.evaluate.report import write_report
from timeloom.evaluate.result_folder import RESULT, write_result
from timeloom.evaluate.video_sets import (
    VideoSet,
    add_texts,
    drop_doubles,
    find_videos,
    inspect,
    listed_videos,
    match_prompts,
    take,
)

PACKAGES = ("timeloom", "torch", "numpy", "av", "transformers")
MAX_WORKERS = 16
PATIENCE = timedelta(days=7)
"""How long processes wait for the slowest."""


def run(options: Options, file: Path, folder: Path) -> int:
    """Evaluate by the protocol in `file`; clips and result go into `folder`. Returns the exit code."""
    if options.weights is not None:
        os.environ["TIMELOOM_WEIGHTS"] = str(options.weights.expanduser())
    if options.overwrite and (options.ray or options.shard or "WORLD_SIZE" in os.environ):
        raise TimeloomError("--overwrite throws videos away that other processes may have made; use it alone first.")
    protocol = load_protocol(file)
    if options.ray:
        _run_ray(options, file, folder)
    with _share(options) as share:
        if share[1] > 1:
            evaluation = Evaluation(options, protocol, file, folder, share)
            evaluation.do_share()
            if options.shard is not None:
                evaluation.status.print(f"Part {options.shard} is done. When all are, run it again without --shard.")
                return 0
            torch.distributed.barrier()
            if share[0]:
                return 0
    # What was done above is there now; what failed there fails here again, and is counted.
    result = Evaluation(options, protocol, file, folder).result()
    write_result(folder, result)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_table([result], Console(), protocol.published)
        print(folder / RESULT)
        print(folder / "report.html")
    return 0


@contextmanager
def _share(options: Options) -> Iterator[tuple[int, int]]:
    """(rank, world) of this process: of --shard, or of torchrun, whose processes meet at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if (shard := shard_of(options)) is not None or world == 1:
        yield shard or (0, 1)
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield torch.distributed.get_rank(), torch.distributed.get_world_size()
    finally:
        torch.distributed.destroy_process_group()


def _run_ray(options: Options, file: Path, folder: Path) -> None:
    """Every part as a Ray task, wherever the cluster has room; the folder must be seen from there."""
    try:
        import ray
    except ImportError as error:
        raise TimeloomError("--ray needs Ray: pip install 'timeloom[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    accelerators = int(ray.cluster_resources().get("GPU", 0))
    task = ray.remote(num_gpus=1 if accelerators else 0, max_retries=1)(_run_part)
    paths = {name: getattr(options, name) for name in ("fake", "real", "annotations", "weights")}
    whole: dict[str, Any] = {name: path.expanduser().resolve() for name, path in paths.items() if path is not None}
    if options.model is not None and Path(options.model).expanduser().is_dir():
        whole["model"] = str(Path(options.model).expanduser().resolve())
    parts = [replace(options, **whole, ray=0, shard=f"{part}/{options.ray}") for part in range(options.ray)]
    try:
        ray.get([task.remote(part, file.resolve(), folder.resolve()) for part in parts])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TimeloomError):
            raise TimeloomError(str(error.cause)) from error
        raise


def _run_part(options: Options, file: Path, folder: Path) -> int:
    return run(options, file, folder)


class Evaluation:
    """What one process does of an evaluation.

    Args:
        options: of the command.
        protocol: from `file`.
        file: of the protocol.
        folder: of the videos and the result.
        share: (rank, world) of the process.
    """

    def __init__(
        self, options: Options, protocol: Protocol, file: Path, folder: Path, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.options, self.protocol, self.folder, self.share = options, protocol, folder, share
        self.status = Console(stderr=True)
        self.departures: list[str] = []
        """What is other than the protocol says."""
        self.prompts = read_prompts(protocol, file, options.annotations, options.real)
        self.device = _device(options.device, share)

    def do_share(self) -> None:
        """Generate this process's part, and compute features of its part of the videos."""
        fake, real, _ = self.videos()
        for extractor, metrics in networks(self.protocol, self.device):
            compute(extractor, metrics, self.protocol, fake, real, self.means)

    @property
    def means(self) -> Means:
        """What features are computed with."""
        workers = self.options.workers
        if workers is None:
            workers = min(MAX_WORKERS, max(1, (os.cpu_count() or 1) // self.share[1] - 1))
        return Means(self.device, workers, self.status)

    def result(self) -> dict[str, Any]:
        """Measure, write the report, and say all that must be said with the numbers."""
        fake, real, settings = self.videos()
        results = measure(self.protocol, fake, real, self.means)  # first: it finds what cannot be read
        real_part = {"folder": str(self.options.real), **_count(real)} if real is not None else None
        result = {
            "name": Path(self.options.model or self.options.fake or "").expanduser().resolve().name,
            "protocol": self.protocol.to_json(),
            "protocol_sha256": self.protocol.sha256,
            "results": results,
            "generated": {**_count(fake), "shapes": dict(fake.shapes.most_common()), "settings": settings},
            "real": real_part,
            "prompts": self._count_prompts(),
            "departures": self.departures,
            "versions": {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()},
        }
        write_report(self.folder, result, self.protocol, fake, real, self._pairs(fake))
        return result

    def videos(self) -> tuple[VideoSet, VideoSet | None, dict[str, Any]]:
        """The generated videos, the real ones where a metric compares with them, and how the former were made; where
        the work is shared, this process's part of them."""
        real = self._real_videos()
        if self.options.model is not None:
            fake, settings = self._generate()
        else:
            fake, settings = self._found_videos(), {"folder": str(self.options.fake)}
        if self.share[1] > 1:
            return fake, real, settings
        total = 2 * len(fake.files) + (len(real.files) if real is not None else 0)
        with counting("files", total, self.status) as done:
            if real is not None:
                drop_doubles(real, done)
            drop_doubles(fake, done)
            inspect(fake, done)
        if real is not None:
            self._expect("real videos", len(real.files), self.protocol.real.count)
        self._expect("generated videos", len(fake.files), self.protocol.generated)
        if len(fake.shapes) > 1:
            self.departures.append(f"generated videos are of {len(fake.shapes)} different sizes, lengths or rates")
        return fake, real, settings

    def _real_videos(self) -> VideoSet | None:
        if not any(metric.reference == "videos" for metric in self.protocol.make_metrics()):
            return None
        if self.options.real is None:
            wanted = [metric.name for metric in self.protocol.make_metrics() if metric.reference == "videos"]
            raise TimeloomError(f"--real, the folder of real videos, is needed for {', '.join(wanted)}.")
        listed = self.prompts.videos if self.prompts is not None else None
        if listed is not None:
            real = listed_videos(self.options.real, listed, "real videos")
        else:
            real = find_videos(self.options.real, "real videos")
            if self.protocol.split and self._annotated:
                self.departures.append(f"all real videos, not {self.protocol.split} alone: no --annotations")
        take(real, self.protocol.real.count, self.protocol.seed)
        return real.part(*self.share)

    def _found_videos(self) -> VideoSet:
        """The videos of --fake, matched with the prompts where there are any."""
        assert self.options.fake is not None
        fake = find_videos(self.options.fake, "generated videos")
        asks = any(metric.reference == "texts" for metric in self.protocol.make_metrics())
        if asks or self.prompts is not None:
            add_texts(fake, self.options.fake)
        if self.prompts is not None and fake.texts:
            return match_prompts(fake, self._asked(self.prompts)).part(*self.share)
        if self._annotated:
            self.departures.append("which of the protocol's prompts the videos answer is not known")
        take(fake, self.options.num_prompts or self.protocol.generated, self.protocol.seed)
        return fake.part(*self.share)

    def _generate(self) -> tuple[VideoSet, dict[str, Any]]:
        if not self._annotated or self.protocol.prompts is None:
            raise TimeloomError(f"The protocol {self.protocol.name} has no prompts; give --fake, a folder of videos.")
        if self.prompts is None:
            needed = NEEDED[self.protocol.prompts.source]
            raise TimeloomError(f"The prompts are not shipped: give --annotations, {needed}.")
        asked = self._asked(self.prompts)
        rank, world = self.share
        with counting("videos", len(asked[rank::world]), self.status) as done:
            settings, failed = generate(
                replace(self.options, device=str(self.device)),
                self.protocol,
                asked,
                self.prompts.sha256,
                self.folder,
                self.share,
                done,
            )
        return made_videos(self.folder, asked[rank::world], failed), settings

    @property
    def _annotated(self) -> bool:
        """Whether annotations could tell the prompts and the split."""
        return self.protocol.prompts is not None and self.protocol.prompts.source != "digits"

    def _asked(self, prompts: PromptSet) -> list[Prompt]:
        asked = prompts.some(self.options.num_prompts, self.protocol.seed)
        if len(asked) < len(prompts.prompts):
            self.departures.append(f"{len(asked)} of {len(prompts.prompts)} prompts, by --num-prompts")
        if self.options.seed not in (None, self.protocol.seed):
            self.departures.append(f"seed {self.options.seed} in place of {self.protocol.seed}")
        return asked

    def _expect(self, what: str, found: int, wanted: int | None) -> None:
        if wanted is not None and found != wanted:
            self.departures.append(f"{found:,} {what} in place of {wanted:,}")

    def _count_prompts(self) -> dict[str, Any] | None:
        if self.prompts is None:
            return None
        refused = dict(self.prompts.ledger.reasons)
        return {"count": len(self.prompts.prompts), "sha256": self.prompts.sha256, "refused": refused}

    def _pairs(self, fake: VideoSet) -> dict[str, str]:
        """{generated video: the real one that its prompt describes}."""
        known = {} if self.prompts is None else {p.text: p.video for p in self.prompts.prompts if p.video is not None}
        return {name: str(known[text]) for name, text in fake.texts.items() if text in known}


def _count(videos: VideoSet) -> dict[str, Any]:
    return {
        "asked": videos.asked,
        "count": len(set(videos.files) - set(videos.failed)),
        "missing": {**videos.missing, **videos.failed},
        "left_out": len(videos.left_out),
        "left_out_examples": dict(list(videos.left_out.items())[:100]),
    }


def _device(name: str, share: tuple[int, int]) -> torch.device:
    """The device; under torchrun each process takes its own accelerator."""
    device = choose_device(name)
    local = os.environ.get("LOCAL_RANK")
    if name == "auto" and device.type == "cuda" and local is not None and share[1] > 1:
        return torch.device(device.type, int(local))
    return device
