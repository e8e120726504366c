"""`timeloom evaluate papers`: what the papers compare, on *digits*.

timeloom evaluate papers                                            # the models of the zoo
timeloom evaluate papers --models runs/ablations --name ablations   # those in a folder of runs
timeloom evaluate papers --num-prompts 8 --steps 5 --samplings      # a first look
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloom import options as command_options
from timeloom.errors import TimeloomError

if TYPE_CHECKING:
    import torch

    from timeloom.evaluate.papers.cases import Case, Judged, Sampling
    from timeloom.evaluate.papers.models import Group, Model


@dataclass(frozen=True)
class Options:
    """Compare what the papers compare, on digits: shift, attention and Swap-CA; images from video models; mechanisms
    taken out; roles; samplers. Run again to go on; what is made and judged stays.

    The models that are named are one group, compared with each other alone. Writes its numbers to results/NAME.json
    beside the page, and the page anew from the numbers of all groups there.
    """

    models: tuple[str, ...] = ()
    """Models, or folders of runs; runs of one recipe with several seeds are one kind. Default: those of the zoo."""
    name: str | None = None
    """Of the group. Default: zoo, or the name of the first of --models."""
    title: str | None = None
    """Heading of the group on the page."""
    num_prompts: int = 64
    """Prompts that each model makes a clip and an image for; 40 at least for intervals of all metrics."""
    sampler: str = "ddpm"
    """ddpm, ddim, dpm-solver++ or unipc; the same for all models, as are steps and guidance."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 3.0
    """Strength of classifier-free guidance; 1 switches it off."""
    samplings: tuple[str, ...] = ("ddpm:25", "ddim:50", "dpm-solver++:25")
    """Other samplers and steps, for the videos of the first model."""
    batch_size: int = 16
    """Clips denoised at once."""
    rounds: int = 10
    """How often a denoising step is timed."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes an accelerator where there is one."""
    output: Path = Path("evaluations/papers")
    """Folder of clips, verdicts and features."""
    page: Path = Path("docs/results.md")
    """The page to write; pictures go into pictures/ beside it."""
    json: bool = False
    """Print the numbers as JSON."""


def main(args: list[str]) -> int:
    """Run `timeloom evaluate papers` and return its exit code."""
    options = command_options.parse(Options, args, prog="timeloom evaluate papers")
    command_options.require_at_least(options, num_prompts=8, steps=1, batch_size=1, rounds=2)
    name = options.name or (Path(options.models[0]).expanduser().resolve().name if options.models else "zoo")
    if not re.fullmatch(r"[\w.-]+", name):
        raise TimeloomError(f"--name {name!r}: letters, digits, dots and hyphens alone, for it names a file.")
    samplings = [_sampling(words) for words in options.samplings]
    from timeloom.data.write import replace_file
    from timeloom.evaluate.papers.models import find_group
    from timeloom.evaluate.papers.page import write_page

    group = find_group(options.models)
    for line in group.left_out:
        print(f"left out: {line}", file=sys.stderr)
    told = [Path(word).name if Path(word).is_absolute() else word for word in args]  # a machine's folders tell nothing
    command = shlex.join(["timeloom", "evaluate", "papers", *told])
    report = {"name": name, "command": command, **numbers(group, samplings, options, name)}
    text = json.dumps(report, indent=1, ensure_ascii=False)
    replace_file(options.page.with_suffix("") / f"{name}.json", (text + "\n").encode())
    write_page(options.page)
    print(text if options.json else options.page)
    return 0


def _sampling(words: str) -> Sampling:
    """ "ddpm:25" as a sampler and its steps."""
    from timeloom.errors import unknown_name
    from timeloom.evaluate.papers.cases import Sampling
    from timeloom.generate.schedulers import SCHEDULERS

    sampler, _, steps = words.partition(":")
    if sampler not in SCHEDULERS:
        raise unknown_name("sampler", sampler, SCHEDULERS)
    if not steps.isdigit() or int(steps) < 1:
        raise TimeloomError(f"--samplings take SAMPLER:STEPS, as ddpm:25, not {words!r}.")
    return Sampling(sampler, int(steps))


def numbers(group: Group, samplings: list[Sampling], options: Options, name: str) -> dict[str, Any]:
    """Judge every case of every model, compare them and time their steps: what the page is written from."""
    from timeloom.device import choose_device
    from timeloom.evaluate.papers.cases import Bench, Budget, Sampling, cases_of
    from timeloom.evaluate.papers.findings import compare, comparisons_of
    from timeloom.evaluate.papers.page import draw_pictures
    from timeloom.evaluate.papers.steps import time_steps

    device = choose_device(options.device)
    sampling = Sampling(options.sampler, options.steps)
    bench = Bench(
        options.output, Budget(options.num_prompts, sampling, options.guidance, options.batch_size, options.device)
    )
    cases = cases_of(group, [one for one in samplings if one != sampling])
    judged: dict[str, list[Judged]] = {}
    for number, case in enumerate(cases):
        print(f"{number + 1} of {len(cases)}: {case.name}", file=sys.stderr, flush=True)
        runs = group.runs[case.label]
        judged[case.name] = [bench(model, case) for model in (runs[:1] if case.sampling else runs)]
    folders = {case.name: judged[case.name][0].folder for case in cases if not case.sampling}
    titles = {"zoo": "The models of the zoo"}
    return {
        "title": options.title or titles.get(name, f"Models of {name}"),
        "machine": machine(device),
        "version": version(),
        "budget": {"num_prompts": options.num_prompts, **asdict(sampling), "guidance": options.guidance},
        "models": {label: [_about(model) for model in models] for label, models in group.runs.items()},
        "left_out": group.left_out,
        "cases": {case.name: _case(case, judged[case.name]) for case in cases},
        "comparisons": compare(judged, comparisons_of(group)),
        "steps": time_steps(group, device, options.rounds, options.output),
        "pictures": draw_pictures(folders, name, options.page.parent / "pictures"),
    }


def _about(model: Model) -> dict[str, Any]:
    training = {"recipe": model.recipe, "held_out_loss": model.held_out_loss} if model.recipe else None
    return {"name": model.name, "sha256": model.sha256, "training": training, **model.defaults}


def _case(case: Case, judged: list[Judged]) -> dict[str, Any]:
    sampling = str(case.sampling) if case.sampling else None
    return {"kind": case.kind, "sampling": sampling, "runs": [one.numbers() for one in judged]}


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were made on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"processor": processor, "threads": torch.get_num_threads(), "device": accelerator}


def version() -> str:
    """Timeloom's, with the commit where this is a checkout, and PyTorch's."""
    import torch

    from timeloom import __version__

    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    said = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    commit = f" ({said.stdout.strip()})" if said.returncode == 0 else ""
    return f"Timeloom {__version__}{commit}, PyTorch {torch.__version__}"
