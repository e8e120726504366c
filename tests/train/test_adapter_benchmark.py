"""The demonstration of benchmarks/adapter.py at tiny size: it runs through, goes on, and keeps its table in a page."""

import importlib.util
import json

import pytest

CHANGES = ["schedule.total_samples=8", "schedule.batch_size=4", "data.validation_clips=4"]
IMAGE = [*CHANGES, "preview.num_inference_steps=2"]
VIDEO = [*CHANGES, "preview.num_inference_steps=2", "data.num_frames=4", "data.fps=2", "model.lora={rank: 2}"]


@pytest.fixture()
def benchmark(project):
    path = project / "benchmarks" / "adapter.py"
    if not path.exists():
        pytest.skip("the benchmarks are not part of this distribution")
    spec = importlib.util.spec_from_file_location("adapter_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_runs_through_and_goes_on(benchmark, trained_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/digits/image_fine").mkdir(parents=True)
    (tmp_path / "runs/digits/image_fine/model").symlink_to(trained_runs / "image/model")
    page, results = tmp_path / "page.md", tmp_path / "results/adapter.json"
    page.write_text(f"before\n\n{benchmark.MARKS[0]}\nold\n{benchmark.MARKS[1]}\n\nafter\n", encoding="utf-8")
    words = ["--num-prompts", "3", "--set-image", *IMAGE, "--set-video", *VIDEO]
    words += ["--page", str(page), "--results", str(results)]
    assert benchmark.main(words) == 0
    result = json.loads(results.read_text(encoding="utf-8"))
    rows = {(row["model"], row["asked_for"], row["adapter_scale"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 7
    for model, scale in (("A", 1.0), ("B", 1.0), ("B", 0.0)):
        row = rows[model, model, scale]
        assert row["protocol"]["num_frames"] == 4 and row["protocol"]["colours"] == result["styles"][model]["colours"]
        assert row["model_right"]["motion"]["all"]["n"] == 3
    images = [row for row in result["rows"] if row["adapter_scale"] is None]
    assert len(images) == 4 and all("motion" not in row["model_right"] for row in images)
    assert rows["A", "B", None]["protocol"]["backgrounds"] == result["styles"]["B"]["backgrounds"]
    weights = [rows[key]["protocol"]["weights_sha256"] for key in (("B", "B", 1.0), ("B", "B", 0.0))]
    assert weights[0] != weights[1]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("| model ") == 7 and "rank 2, trained on 8 clips" in text

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluations").rglob("*.npz")}
    assert len(made) == 3 * 3 + sum(row["num_prompts"] for row in images)
    assert benchmark.main(words) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    again = json.loads(results.read_text(encoding="utf-8"))
    assert [row["model_right"] for row in again["rows"]] == [row["model_right"] for row in result["rows"]]
