"""Which device a command computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timeloom.errors import TimeloomError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """The device called `name` ("cpu", "cuda:1", ...); "auto" takes an accelerator where there is one.

    Raises:
        TimeloomError: this machine cannot use it.
    """
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise TimeloomError(f"--device {name} cannot be used: {reason}") from error
    return device
