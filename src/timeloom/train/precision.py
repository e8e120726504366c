"""bf16 where a recipe says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Compute in "bf16", with weights kept in fp32, or in "fp32". On a CPU attention is then written out: its fused
    backward pass in bf16 took 29 % of a step of digits/video_shift, written out 2 %. The meta device knows no bf16."""
    if name == "fp32" or device.type == "meta":
        yield
        return
    written_out = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, torch.bfloat16), written_out:
        yield
