import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.models.unet import VideoUNet
from timeloom.train.average import Average
from timeloom.train.checkpoints import Checkpoints
from timeloom.train.engine import Trainer
from timeloom.train.optimizer import allocate_state, make_optimizer, state_tensors
from timeloom.train.parallel import Processes, _groups, _require_equal_passes, shard
from timeloom.train.recipe import EvaluationOptions, OptimizerOptions, Recipe
from timeloom.train.run_folder import claim
from timeloom.train.tasks import build_task

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EVALUATION = EvaluationOptions(every=16, num_prompts=18)  # of more prompts than one batch


@pytest.fixture(scope="module")
def one_process(tiny_recipe: MakeRecipe, trained_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, all its checkpoints kept: clips and images, activations computed again."""
    folder = tmp_path_factory.mktemp("one") / "run"
    train(shared_recipe(tiny_recipe, trained_runs, folder).model_copy(update={"evaluation": EVALUATION}))
    return folder


def shared_recipe(tiny_recipe: MakeRecipe, runs: Path, output: Path) -> Recipe:
    recipe = tiny_recipe("video", runs, output, keep_checkpoints=9)
    loss = recipe.loss.model_copy(update={"image_share": 0.5})
    preview = recipe.preview.model_copy(update={"prompts": ["a red seven moves left", "a blue one", "a green two"]})
    return recipe.model_copy(update={"loss": loss, "preview": preview, "gradient_checkpointing": True})


def train(recipe: Recipe) -> None:
    Trainer(recipe, build_task(recipe, CPU), CPU).run()


def command(recipe: Recipe, folder: Path) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return [*TORCHRUN, "-m", "timeloom", "train", str(path), "--device", "cpu"]


def logged(folder: Path, name: str = "loss") -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    return {line["samples"]: line[name] for line in lines if name in line}


def unet(folder: Path) -> torch.Tensor:
    tensors = load_file(folder / "model/unet/diffusion_pytorch_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.mark.slow
def test_two_processes_with_shards_go_on_from_one_with_the_same_losses(
    tiny_recipe: MakeRecipe, trained_runs: Path, one_process: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(one_process, run, ignore=shutil.ignore_patterns("model", "previews", "000000000008", "*12", "*16"))
    recipe = shared_recipe(tiny_recipe, trained_runs, run)
    recipe = recipe.model_copy(update={"parallel": "fsdp", "evaluation": EVALUATION})
    done = subprocess.run(command(recipe, tmp_path), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "resuming after 4 samples" in done.stdout
    for name in ("loss", "grad_norm", "validation/loss"):
        assert logged(run, name) == pytest.approx(logged(one_process, name), abs=1e-5)
    # Adam divides by the gradient's own size, so that where it is tiny, rounding decides about a step of at most 3e-3.
    assert (unet(run) - unet(one_process)).abs().quantile(0.99) < 1e-5
    sheets = [np.asarray(Image.open(folder / "previews/000000000016.png")).astype(int) for folder in (run, one_process)]
    assert np.abs(sheets[0] - sheets[1]).mean() < 0.1
    assert sheets[0].std() > 10
    assert len(list((run / "evaluations/000000000016/clips").glob("*.npz"))) == 18
    for name in ("evaluation/digits-fvd", "evaluation/digits-clipsim"):
        assert list(logged(run, name)) == [16]
        assert logged(run, name) == pytest.approx(logged(one_process, name), rel=0.02)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_one_process_goes_on(
    tiny_recipe: MakeRecipe, trained_runs: Path, one_process: Path, tmp_path: Path
) -> None:
    recipe = shared_recipe(tiny_recipe, trained_runs, tmp_path / "run").model_copy(update={"parallel": "fsdp"})
    run = subprocess.Popen(
        command(recipe, tmp_path), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.strip().startswith("8 / 16"):
            break
    workers = psutil.Process(run.pid).children(recursive=True)
    second = [worker for worker in workers if worker.environ().get("RANK") == "1"]
    assert second
    for worker in second:
        worker.send_signal(signal.SIGKILL)
    run.stdout.close()
    assert run.wait(timeout=120) != 0
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not (tmp_path / "run/model").exists()
    train(recipe)
    assert logged(tmp_path / "run") == pytest.approx(logged(one_process), abs=1e-5)
    assert (unet(tmp_path / "run") - unet(one_process)).abs().quantile(0.99) < 1e-5


TOY = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from timeloom.train.checkpoints import Checkpoints
from timeloom.train.parallel import Processes, shard
sys.path.insert(0, sys.argv[2])
from toy import Run

dist.init_process_group("gloo")
processes = Processes()
assert processes.share(lambda i: i * i, range(5)) == [0, 1, 4, 9, 16]
assert processes.gather(processes.rank) == [0, 1]
folder = Path(sys.argv[1])
run = Run(lambda network: shard(network, "fp32"))
assert run.network[2].weight.to_local().numel() == (3 if processes.rank == 0 else 0)
run.load(Checkpoints(folder / "one", 9, processes))
Checkpoints(folder / "again", 9, processes).save(3, run.state())
for step in range(3, 6):
    run.step(step, slice(4 * processes.rank, 4 * processes.rank + 4))
Checkpoints(folder / "two", 9, processes).save(6, run.state())
dist.destroy_process_group()
"""

RUN = """
import torch
from torch import nn
from timeloom.train.average import Average
from timeloom.train.optimizer import allocate_state, make_optimizer, state_tensors
from timeloom.train.recipe import OptimizerOptions


class Run:
    # 3 rows on two processes are 2 and 1, 1 row is 1 and none.
    def __init__(self, wrap=lambda network: network):
        torch.manual_seed(0)
        self.network = wrap(nn.Sequential(nn.Linear(5, 3), nn.GELU(), nn.Linear(3, 1)))
        options = OptimizerOptions(learning_rate=1e-2, weight_decay=0.1)
        self.optimizer = make_optimizer(options, self.network.parameters())
        self.average = Average(self.network, half_life=8)

    def step(self, number, part):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(number))
        loss = (self.network(inputs[part]) - inputs[part].sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(8, 8 * (number + 1))

    def state(self):
        optimizer = state_tensors(self.optimizer, self.network)
        return {"network": self.network.state_dict(), "average": self.average.weights, "optimizer": optimizer}

    def load(self, checkpoints):
        allocate_state(self.optimizer)
        return checkpoints.load(self.state())
"""


@pytest.mark.slow
def test_checkpoints_fit_any_number_of_processes(tmp_path: Path) -> None:
    """One process, two with shards, one again; also where a process has nothing of a tensor."""
    (tmp_path / "toy.py").write_text(RUN)
    (tmp_path / "script.py").write_text(TOY)
    names: dict = {}
    exec(RUN, names)
    whole = names["Run"]()
    for step in range(3):
        whole.step(step, slice(0, 8))
    Checkpoints(tmp_path / "one", 9, Processes()).save(3, whole.state())
    script = [*TORCHRUN, str(tmp_path / "script.py"), str(tmp_path), str(tmp_path)]
    done = subprocess.run(script, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    again, two = names["Run"](), names["Run"]()
    assert again.load(Checkpoints(tmp_path / "again", 9, Processes())) == 3
    assert flat(again.state()).keys() == flat(whole.state()).keys()
    for name, tensor in flat(again.state()).items():
        assert torch.equal(tensor, flat(whole.state())[name]), name
    for step in range(3, 6):
        whole.step(step, slice(0, 8))
    assert two.load(Checkpoints(tmp_path / "two", 9, Processes())) == 6
    for name, tensor in flat(two.state()).items():
        torch.testing.assert_close(tensor, flat(whole.state())[name], rtol=1e-4, atol=1e-6, msg=name)


def flat(state: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for part, tensors in state.items() for name, tensor in tensors.items()}


def test_reading_a_checkpoint_changes_nothing_but_what_it_says(tmp_path: Path) -> None:
    networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
    optimizers = [make_optimizer(OptimizerOptions(weight_decay=0.5), network.parameters()) for network in networks]
    networks[0](torch.ones(1, 3)).sum().backward()
    optimizers[0].step()
    before = [parameter.detach().clone() for parameter in networks[1].parameters()]
    allocate_state(optimizers[1])
    assert all(torch.equal(a, b) for a, b in zip(before, networks[1].parameters(), strict=True))
    states = [{"optimizer": state_tensors(o, n)} for o, n in zip(optimizers, networks, strict=True)]
    Checkpoints(tmp_path, 1, Processes()).save(1, states[0])
    Checkpoints(tmp_path, 1, Processes()).load(states[1])
    assert optimizers[1].state[networks[1].weight]["step"] == 1
    assert torch.equal(*(o.state[n.bias]["exp_avg"] for o, n in zip(optimizers, networks, strict=True)))


def test_each_parameter_of_a_layer_is_in_one_group() -> None:
    network = VideoUNet(
        sample_size=8,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        temporal="attention",
    )
    groups = [{id(p) for module in group for p in module.parameters()} for group in _groups(network)]
    grouped = set().union(*groups)
    assert sum(map(len, groups)) == len(grouped)
    left = {name.split(".")[0] for name, p in network.named_parameters() if id(p) not in grouped}
    samplers = {name for name, p in network.named_parameters() if id(p) not in grouped and "samplers" not in name}
    assert left == {"conv_in", "time_embedding", "down_blocks", "up_blocks", "conv_norm_out", "conv_out"}
    assert not any(name.startswith(("down_blocks", "up_blocks")) for name in samplers)


def test_processes_that_would_wait_for_each_other_are_refused(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("video", tmp_path)  # every fourth clip is seen as images
    _require_equal_passes(recipe, world=1)
    with pytest.raises(TimeloomError, match="image_share"):
        _require_equal_passes(recipe, world=2)
    with pytest.raises(TimeloomError, match="image_share"):
        _require_equal_passes(tiny_recipe("video", tmp_path, micro_batch_size=3), world=1)
    _require_equal_passes(tiny_recipe("image", tmp_path), world=4)


def test_a_parameter_without_dimensions_cannot_be_sharded() -> None:
    network = nn.Linear(2, 2)
    network.temperature = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(TimeloomError, match="temperature"):
        shard(network, "fp32")


def test_another_recipe_is_refused_whatever_the_number_of_processes(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("video", tmp_path)
    clips = {"training": 9, "held_out": 1}
    claim(tmp_path, recipe, clips, started=False, write=True)
    how = recipe.model_copy(update={"parallel": "fsdp", "trackers": ["wandb"]})
    claim(tmp_path, how, clips, started=True, write=False)
    eight_bit = recipe.optimizer.model_copy(update={"kind": "adamw_8bit"})
    changes = {
        "precision = 'fp32'.* 'bf16'": {"precision": "bf16"},
        r"optimizer\.kind = 'adamw'.* 'adamw_8bit'": {"optimizer": eight_bit},
        "ema_half_life_samples = 8": {"ema_half_life_samples": 0},
    }
    for said, change in changes.items():
        with pytest.raises(TimeloomError, match=f"holds a run with {said}"):
            claim(tmp_path, recipe.model_copy(update=change), clips, started=True, write=False)
    with pytest.raises(TimeloomError, match="9 clips and 1 held out, and there are 10"):
        claim(tmp_path, recipe, {**clips, "training": 10}, started=True, write=False)
    with pytest.raises(ValidationError, match="compile"):
        Recipe.model_validate({**recipe.model_dump(), "parallel": "fsdp", "compile": True})


def test_one_process_alone() -> None:
    assert Processes().share(str, [3, 1]) == ["3", "1"]
    assert Processes().gather("mine") == ["mine"]
    network = nn.Linear(1, 1)
    assert Average(network, 0).weights == {}
