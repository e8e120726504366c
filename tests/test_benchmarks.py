"""The benchmarks run; what they find is not judged here."""

import importlib.util
import json
import sys

import pytest


@pytest.fixture()
def denoiser(project, monkeypatch):
    path = project / "benchmarks" / "denoiser.py"
    if not path.exists():
        pytest.skip("the benchmarks are not part of this distribution")
    spec = importlib.util.spec_from_file_location("denoiser", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "denoiser", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "matrix_rate", lambda dtype: 1e11)
    monkeypatch.setattr(module, "copy_rate", lambda: 1e10)
    return module


def test_denoiser(denoiser, tmp_path, capsys):
    output = tmp_path / "results" / "tiny.json"
    assert denoiser.main(["--size", "tiny", "--repeats", "2", "--no-memory", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert list(report["cases"]) == list(denoiser.CASES)
    assert report["difference_diffusers_none"] < 1e-6
    assert report["cases"][denoiser.NONE]["ratio_to_none"] == 1
    flops = {name: case["flops"] for name, case in report["cases"].items()}
    assert flops.pop(denoiser.DIFFUSERS) > flops[denoiser.NONE] > 0  # text keys and values for every frame
    assert len(set(flops.values())) == 1
    assert "VideoUNet shift residual_end" in capsys.readouterr().out


def test_operations_are_counted(denoiser):
    import torch

    with torch.no_grad(), denoiser.LowerBound() as bound:
        torch.nn.functional.scaled_dot_product_attention(*[torch.randn(1, 2, 8, 4)] * 3)
        torch.randn(3, 5) @ torch.randn(5, 7)
    (attention, _), (product, moved) = bound.operations
    assert attention == 2 * 2 * 2 * 8 * 8 * 4
    assert (product, moved) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
