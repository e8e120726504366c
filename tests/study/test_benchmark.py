import importlib.util
import json

import pytest


@pytest.mark.slow
def test_the_benchmark_runs_and_no_vote_is_lost(project, monkeypatch, tmp_path):
    path = project / "benchmarks" / "study.py"
    if not path.exists():
        pytest.skip("the benchmarks are not part of this distribution")
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location("study_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = ["--raters", "10", "--votes", "80", "--pauses", "0", "--output", str(tmp_path / "study.json")]
    assert module.main(words) == 0
    (case,) = json.loads((tmp_path / "study.json").read_text())["cases"]
    assert (case["votes"], case["lost"], case["double"]) == (80, 0, 0) and case["server_cpu_ms_per_vote"] > 0
