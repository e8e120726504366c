"""The moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from timeloom.train.parallel import local


class Average:
    """Exponential moving average of a network's weights (half-life in samples, EDM2 style).

    Of a sharded network each process averages its shares: the average's share is the shares' average.
    """

    def __init__(self, network: nn.Module, half_life: float) -> None:
        self.network, self.half_life = network, half_life
        self.weights = (
            {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad} if half_life else {}
        )

    @torch.no_grad()
    def update(self, batch_size: int, samples: int) -> None:
        """Take one step; early on the half-life is a tenth of the samples seen, so that the start is forgotten."""
        if self.weights:
            keep = 0.5 ** (batch_size / max(1.0, min(self.half_life, samples / 10)))
            current = dict(self.network.named_parameters())
            averages = [local(average) for average in self.weights.values()]
            torch._foreach_lerp_(averages, [local(current[name]) for name in self.weights], 1 - keep)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the network has its average weights, and the average has the network's: no third copy is made."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        current = dict(self.network.named_parameters())
        for name, average in self.weights.items():
            mine, its = local(current[name]), local(average)
            held = mine.clone()
            mine.copy_(its)
            its.copy_(held)
