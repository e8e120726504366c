"""Which parameters learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

from rich.table import Table
from torch import nn

from timeloom.errors import unknown_name


def select_trainable(network: nn.Module, patterns: list[str]) -> None:
    """Freeze every parameter whose name fits none of the patterns ("temporal_mechanism.*").

    Raises:
        TimeloomError: a pattern that fits no parameter.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown_name("parameter in model.trainable", pattern, names)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def count_parameters(network: nn.Module) -> int:
    """All of them, whether or not they learn."""
    return sum(parameter.numel() for parameter in network.parameters())


def trainable_table(network: nn.Module, frozen: Mapping[str, int] | None = None) -> Table:
    """Parameters that learn and that stay, for each part of the network and each of `frozen` (name: parameters)."""
    learns: Counter[str] = Counter()
    stays: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        (learns if parameter.requires_grad else stays)[name.partition(".")[0]] += parameter.numel()
    table = Table("part", "trained", "frozen", title="Parameters")
    stays.update(frozen or {})
    for part in dict.fromkeys([*(name.partition(".")[0] for name, _ in network.named_parameters()), *(frozen or {})]):
        table.add_row(part, f"{learns[part]:,}", f"{stays[part]:,}")
    table.add_row("in all", f"{learns.total():,}", f"{stays.total():,}")
    return table
