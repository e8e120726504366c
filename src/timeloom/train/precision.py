"""bf16 where a recipe says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Compute in "bf16", with weights kept in fp32, or in "fp32". The meta device knows no bf16."""
    if name == "fp32" or device.type == "meta":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), attention(name, device):
        yield


def attention(name: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """In bf16 on a CPU, written out: its fused backward pass took 29 % of a step of digits/video_shift, written out
    2 %. Around the backward pass too, which with gradient checkpointing runs the forward pass again."""
    return sdpa_kernel(SDPBackend.MATH) if (name, device.type) == ("bf16", "cpu") else contextlib.nullcontext()
