"""What arithmetic must at least cost on this machine, and what machine this is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

import timeloom


class LowerBound(TorchDispatchMode):
    """Arithmetic and memory traffic of every convolution, matrix product and attention, were all else fused into them.

    Each reads its inputs and its weights once and writes its output once.
    """

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, int]] = []
        """Floating-point operations and bytes of each."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        kind = function._overloadpacket
        flops = None
        if kind is self.attention:
            flops = sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif kind in flop_registry:
            flops = flop_registry[kind](*args, **(kwargs or {}), out_val=result)
        if flops is not None:
            tensors = [tensor for tensor in tree_iter((args, kwargs, result)) if isinstance(tensor, Tensor)]
            self.operations.append((flops, sum(tensor.numel() * tensor.element_size() for tensor in tensors)))
        return result


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_rate(dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    out = torch.empty_like(a)
    return 2 * side**3 / best_time(lambda: torch.mm(a, b, out=out), 6)


def copy_rate(megabytes: int = 256) -> float:
    """Bytes a second, read and written together, of a copy that no cache holds."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / best_time(lambda: target.copy_(source), 6)


def machine() -> dict[str, Any]:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timeloom": timeloom.__version__,
    }
