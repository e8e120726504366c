"""The benchmarks run; what they find is not judged here."""

import importlib.util
import json
import sys
from concurrent.futures import Future

import pytest


def benchmark(project, monkeypatch, name):
    path = project / "benchmarks" / f"{name}.py"
    if not path.exists():
        pytest.skip("the benchmarks are not part of this distribution")
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture()
def denoiser(project, monkeypatch):
    module = benchmark(project, monkeypatch, "denoiser")
    monkeypatch.setattr(module, "matrix_rate", lambda dtype: 1e11)
    monkeypatch.setattr(module, "copy_rate", lambda: 1e10)
    return module


def test_denoiser(denoiser, tmp_path, capsys):
    output = tmp_path / "results" / "tiny.json"
    assert denoiser.main(["--size", "tiny", "--repeats", "2", "--no-memory", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert list(report["cases"]) == list(denoiser.CASES)
    assert report["difference_diffusers_none"] < 1e-6
    assert report["cases"][denoiser.NONE]["ratio_to_none"] == report["cases"][denoiser.SHIFT]["ratio_to_shift"] == 1
    flops = {name: case["flops"] for name, case in report["cases"].items()}
    assert len({flops[name] for name in denoiser.MECHANISMS}) == 1  # a shift computes nothing
    for other in (denoiser.DIFFUSERS, denoiser.VDM, denoiser.MOTION, denoiser.MODELSCOPE):
        assert flops[other] > flops[denoiser.NONE] > 0
    assert denoiser.SHIFT in capsys.readouterr().out


def test_denoiser_against_the_number_of_frames(denoiser, tmp_path):
    output = tmp_path / "frames.json"
    assert denoiser.main(["--size", "tiny", "--repeats", "1", "--frames", "2", "3", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert list(report["frames"]) == ["2", "3"] and report["frames"]["2"]["a_frame_to_first"] == 1


class HereAndNow:
    """Runs what it is given in this process."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future


@pytest.mark.slow
def test_training(project, monkeypatch, tmp_path):
    training = benchmark(project, monkeypatch, "training")
    monkeypatch.setattr(training, "ProcessPoolExecutor", HereAndNow)  # a process of its own takes seconds to start
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path))
    output = tmp_path / "training.json"
    assert training.main(["--steps", "1", "--rounds", "1", "--precision", "fp32", "--output", str(output)]) == 0
    cases = json.loads(output.read_text())["cases"]
    assert list(cases) == [training.PLAIN, training.COLD, training.WARM]
    assert all(case["clips_per_s"] > 0 and case["peak_memory_bytes"] > 0 for case in cases.values())


def test_operations_are_counted(denoiser):
    import torch

    with torch.no_grad(), denoiser.LowerBound() as bound:
        torch.nn.functional.scaled_dot_product_attention(*[torch.randn(1, 2, 8, 4)] * 3)
        torch.randn(3, 5) @ torch.randn(5, 7)
    (attention, _), (product, moved) = bound.operations
    assert attention == 2 * 2 * 2 * 8 * 8 * 4
    assert (product, moved) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_upscale(project, monkeypatch, tmp_path):
    module = benchmark(project, monkeypatch, "upscale")
    output = tmp_path / "upscale.json"
    size = ["--height", "12", "--width", "16", "--width-of-network", "8", "--repeats", "1"]
    assert module.main([*size, "--no-memory", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert list(report["cases"]) == [module.NAIVE, module.FP32, module.BF16, module.BICUBIC]
    assert report["cases"][module.NAIVE]["faster_than_naive"] == 1 and report["flops_a_frame"] > 0


def test_swap_attention(project, monkeypatch, tmp_path):
    swap_attention = benchmark(project, monkeypatch, "swap_attention")
    output = tmp_path / "tiny.json"
    monkeypatch.setattr(swap_attention, "graph_breaks", lambda: 0)  # takes long; models/test_space_time.py sees to it
    words = ["--size", "tiny", "--frames", "8", "16", "--repeats", "1", "--device", "cpu", "--output", str(output)]
    assert swap_attention.main(words) == 0
    report = json.loads(output.read_text())
    few, many = report["layer"]["8"], report["layer"]["16"]
    assert many["windows"]["flops"] == 2 * few["windows"]["flops"]  # windows grow as the tokens do
    assert many["global"]["flops"] > 2 * few["global"]["flops"]
    assert report["step"]["Swap-CA"]["flops"] > report["step"]["plain addition"]["flops"]
    assert report["step"]["plain addition"]["time_ratio"] == 1


@pytest.mark.slow
def test_evaluate(project, monkeypatch, tmp_path):
    evaluate = benchmark(project, monkeypatch, "evaluate")
    output = tmp_path / "evaluate.json"
    words = ["--clips", "2", "--rounds", "1", "--counts", "12", "14", "--output", str(output)]
    for part in ("frechet", "memory"):
        assert evaluate.main(["--part", part, *words]) == 0
    report = json.loads(output.read_text())
    assert report["frechet"]["seconds"] > 0
    assert [case["clips"] for case in report["memory"]["counts"]] == [12, 14]
