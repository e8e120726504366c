"""Which device a command computes on, and in which numbers."""

from __future__ import annotations

import contextlib
import ctypes
import sys
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


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's mallopt(3)."""


def keep_memory(device: torch.device) -> None:
    """On a CPU under glibc, let new tensors have the memory of freed ones; elsewhere do nothing.

    By default glibc asks the kernel for each block above 32 MiB, and gives it back when it is freed. The kernel hands
    out pages one by one, with zeros in them, so that writing such a tensor takes many times as long as writing memory
    that the process has. With this the process stays as large as it has once been.
    """
    if device.type == "cpu" and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, -1)


def warn_of_slow_numbers(precision: str, device: torch.device) -> None:
    """Say so where bf16 is asked of a processor without instructions for it: it takes many times as long as fp32."""
    import torch

    if precision != "bf16" or device.type != "cpu":
        return
    try:
        quick = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # built without oneDNN
        quick = False
    if not quick:
        print("This processor has no instructions for bf16; fp32 is several times faster here.", file=sys.stderr)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Numbers of the `--precision` "bf16" or "fp32", with a warning as above."""
    import torch

    warn_of_slow_numbers(precision, device)
    return torch.bfloat16 if precision == "bf16" else torch.float32
