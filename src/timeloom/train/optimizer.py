"""The optimizer, its learning rate, and its state by parameter names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from timeloom.errors import TimeloomError
from timeloom.train.parallel import local
from timeloom.train.recipe import OptimizerOptions


def learning_rate(options: OptimizerOptions, samples: int, total: int) -> float:
    """Linear warm-up, then constant, or a cosine down to the final rate."""
    peak, final = options.learning_rate, options.final_learning_rate
    if samples < options.warmup_samples:
        return peak * (samples + 1) / options.warmup_samples
    if final is None:
        return peak
    done = (samples - options.warmup_samples) / max(1, total - options.warmup_samples)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_optimizer(options: OptimizerOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW over the parameters; `adamw_8bit` keeps its moments in 8 bits by blocks of 256 (arXiv 2110.02861).

    Raises:
        TimeloomError: `adamw_8bit`, and torchao is not installed.
    """
    common: dict[str, Any] = {
        "lr": options.learning_rate,
        "betas": options.betas,
        "weight_decay": options.weight_decay,
    }
    if options.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **common)
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise TimeloomError(
            "optimizer.kind: adamw_8bit needs the package torchao: pip install 'timeloom[optim8bit]'"
        ) from error
    return AdamW8bit(parameters, **common)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For the next step; torchao keeps its rate in a tensor, so that its compiled step need not be compiled again."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that the first step would make, so that a checkpoint can be read into it.

    A step with zero gradients at rate 0: no parameter changes.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    rate = float(optimizer.param_groups[0]["lr"])
    set_learning_rate(optimizer, 0.0)
    optimizer.step()
    set_learning_rate(optimizer, rate)
    optimizer.zero_grad(set_to_none=True)


def state_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The state as "parameter name.key": the optimizer's own tensors, or an fp32 copy of what it keeps in 8 bits.

    In fp32, because 8-bit blocks are laid over the local share of a tensor, and so differ with the number of processes.
    """
    return {name: _unpack(value) for name, value in _named_state(optimizer, network)}


def put_state(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Pack again what `state_tensors` unpacked; everything else was read in place."""
    for name, value in _named_state(optimizer, network):
        if _is_packed(value):
            local(value).copy_(local(tensors[name]))


def _named_state(optimizer: torch.optim.Optimizer, network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}.{key}", value


def _is_packed(value: Tensor) -> bool:
    return type(local(value)) is not Tensor


def _unpack(value: Tensor) -> Tensor:
    if not _is_packed(value):
        return value
    plain = local(value).dequantize()
    if not isinstance(value, DTensor):
        return plain
    shape, stride = value.shape, value.stride()
    return DTensor.from_local(plain, value.device_mesh, value.placements, run_check=False, shape=shape, stride=stride)
