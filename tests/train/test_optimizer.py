import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from timeloom.errors import TimeloomError
from timeloom.train.checkpoints import Checkpoints
from timeloom.train.optimizer import allocate_state, make_optimizer, put_state, set_learning_rate, state_tensors
from timeloom.train.parallel import Processes
from timeloom.train.recipe import OptimizerOptions

EIGHT_BIT = OptimizerOptions(kind="adamw_8bit", learning_rate=1e-2)


class Packed(Tensor):
    """Looks like fp32 and holds 256 levels in its own range, as torchao's OptimState8bit does."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def zeros(like: Tensor) -> "Packed":
        packed = torch.zeros_like(like, requires_grad=False).as_subclass(Packed)
        packed.codes, packed.scale = torch.zeros(like.shape, dtype=torch.int8), torch.ones(())
        return packed

    def dequantize(self) -> Tensor:
        return self.codes.float() / 127 * self.scale

    def copy_(self, source: Tensor) -> "Packed":
        self.scale = source.abs().max().clamp_min(1e-12)
        self.codes = (source / self.scale * 127).round().to(torch.int8)
        return self


class FakeAdamW8bit(torch.optim.Optimizer):
    """The signature and habits of torchao.optim.AdamW8bit: its rate is a tensor and must stay one."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, {"lr": torch.tensor(lr), "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert isinstance(group["lr"], Tensor)
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(step=torch.tensor(0.0), exp_avg=Packed.zeros(parameter.detach()))
                state["step"] += 1
                state["exp_avg"].copy_(state["exp_avg"].dequantize().lerp(parameter.grad, 0.1))
                parameter.sub_(group["lr"] * state["exp_avg"].dequantize())


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.optim", SimpleNamespace(AdamW8bit=FakeAdamW8bit))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(TimeloomError, match=r"pip install 'timeloom\[optim8bit\]'"):
        make_optimizer(EIGHT_BIT, nn.Linear(1, 1).parameters())


def moved(network: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    network.weight.grad = torch.linspace(-1, 1, network.weight.numel()).reshape(network.weight.shape)
    network.bias.grad = torch.ones_like(network.bias)
    optimizer.step()


def test_state_in_8_bits_goes_through_a_checkpoint(torchao: None, tmp_path: Path) -> None:
    networks = [nn.Linear(4, 3), nn.Linear(4, 3)]
    optimizers = [make_optimizer(EIGHT_BIT, network.parameters()) for network in networks]
    set_learning_rate(optimizers[0], 0.5)
    assert optimizers[0].param_groups[0]["lr"].item() == 0.5
    moved(networks[0], optimizers[0])
    saved = state_tensors(optimizers[0], networks[0])
    assert {type(tensor) for tensor in saved.values()} == {Tensor}
    assert saved["weight.exp_avg"].abs().max() > 0
    Checkpoints(tmp_path, 1, Processes()).save(1, {"optimizer": saved})

    before = networks[1].weight.detach().clone()
    allocate_state(optimizers[1])
    assert torch.equal(networks[1].weight, before)
    state = state_tensors(optimizers[1], networks[1])
    Checkpoints(tmp_path, 1, Processes()).load({"optimizer": state})
    put_state(optimizers[1], networks[1], state)
    assert optimizers[1].state[networks[1].weight]["step"] == 1
    read = optimizers[1].state[networks[1].weight]["exp_avg"].dequantize()
    torch.testing.assert_close(read, saved["weight.exp_avg"], rtol=0, atol=1e-3)


def test_torchao_itself(tmp_path: Path) -> None:
    pytest.importorskip("torchao.optim")
    networks = [nn.Linear(64, 128), nn.Linear(64, 128)]
    optimizers = [make_optimizer(EIGHT_BIT, network.parameters()) for network in networks]
    moved(networks[0], optimizers[0])
    saved = state_tensors(optimizers[0], networks[0])
    Checkpoints(tmp_path, 1, Processes()).save(1, {"optimizer": saved})
    allocate_state(optimizers[1])
    state = state_tensors(optimizers[1], networks[1])
    Checkpoints(tmp_path, 1, Processes()).load({"optimizer": state})
    put_state(optimizers[1], networks[1], state)
    read = state_tensors(optimizers[1], networks[1])["weight.exp_avg"]
    torch.testing.assert_close(read, saved["weight.exp_avg"], rtol=0, atol=1e-2)
