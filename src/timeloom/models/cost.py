"""What networks cost: floating-point operations and bytes, counted on the meta device, where nothing is computed."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    flops: int
    """Two for each multiplication and addition of a matrix product, convolution or attention; nothing for the rest."""
    peak_bytes: int
    """The most that intermediate results took at once, inputs and weights left out."""
    kept_bytes: int
    """What intermediate results still took when the call was done: its result, and what a backward pass needs."""


class Meter(TorchDispatchMode):
    """Counts operations, and the bytes of what they make for as long as it is alive; `existing` tensors do not count.

    The operations are PyTorch's own formulas (`torch.utils.flop_counter`). Its FlopCounterMode is not used: it holds on
    to what a checkpointed layer computes again, so that the memory of a backward pass could not be told beside it.
    """

    def __init__(self, existing: Iterable[Tensor]) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in existing:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = True
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Attention as accelerators compute it, without the matrix of weights; the meta device would write that out.

    The function itself is exchanged: a TorchFunctionMode would be off while the backward pass recomputes layers.
    """

    def fused(query: Tensor, key: Tensor, value: Tensor, *unused: Any, **options: Any) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def measure(
    network: nn.Module, call: Callable[[], Tensor], backward: bool = False, frozen: Iterable[nn.Module] = ()
) -> Cost:
    """The cost of `call`, which runs `network` on the meta device; with `backward`, of both passes.

    A parameter's gradient counts until it is ready to be added to what the trainer holds, and no longer. `frozen` are
    networks that the call runs too: their operations count, their weights do not.
    """
    trained = [parameter for parameter in network.parameters() if backward and parameter.requires_grad]
    ready = [parameter.register_post_accumulate_grad_hook(_drop_gradient) for parameter in trained]
    existing = [tensor for each in (network, *frozen) for tensor in (*each.parameters(), *each.buffers())]
    with (
        torch.set_grad_enabled(backward),
        Meter(existing) as meter,
        fused_attention(),
    ):
        result = call()
        kept = meter.now
        if backward:
            result.backward(torch.empty_like(result))
    for hook in ready:
        hook.remove()
    return Cost(int(meter.flops), meter.peak, kept)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
