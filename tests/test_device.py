import platform
import subprocess
import sys

import pytest
import torch

from timeloom.device import choose_device, choose_dtype
from timeloom.errors import TimeloomError


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(TimeloomError, match="--device cuda:99 cannot be used"):
        choose_device("cuda:99")


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_is_warned_of_where_the_processor_lacks_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert choose_dtype("fp32", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cuda")) == torch.bfloat16
    assert not capsys.readouterr().err
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert ("fp32 is several times faster" in capsys.readouterr().err) is not supported


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_large_tensors_take_the_memory_of_freed_ones() -> None:
    """Pages that the kernel hands out while 64 MiB are written ten times, once the heap has found its size."""
    program = """
import resource, sys, torch
from timeloom.device import keep_memory
if sys.argv[1] == "keep":
    keep_memory(torch.device("cpu"))
for _ in range(10):
    torch.empty(2**24).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(2**24).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True).stdout)
        for how in ("plain", "keep")
    )
    assert kept < plain / 5
