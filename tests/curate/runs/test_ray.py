"""The engine `ray` gives the rows of the engine `process`, also where a worker is killed."""

import importlib
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from timeloom.curate import stages
from timeloom.curate.engines import ProcessEngine, RayEngine
from timeloom.curate.pipeline import Layout, curate
from timeloom.curate.recipe import load
from timeloom.curate.stages import Job

pytest.importorskip("ray")


@pytest.fixture
def engine(monkeypatch):
    import ray

    folder = str(Path(__file__).parents[1])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    yield RayEngine(2)
    ray.shutdown()


@pytest.mark.slow
def test_the_same_rows_though_a_worker_is_killed(tmp_path, make_film, engine, monkeypatch):
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4", "d.mp4")):
        make_film(name, (number, number + 1))
    (tmp_path / "videos/empty.mp4").touch()
    recipe = load("any-size", ["filters={}", "output.form=shards", "captions.model=no/such"])

    def run(output, engine):
        job = Job(tmp_path / "videos", tmp_path / output / "work", recipe)
        curate(job, Layout(tmp_path / output), engine, lambda what, things, total: things)
        return [pq.read_table(tmp_path / output / f"{stem}.parquet") for stem in ("clips", "ledger")]

    expected = run("process", ProcessEngine(0))
    mark = str(tmp_path / "killed")
    make_stages = stages.make_stages

    def dying(job):
        each, together = make_stages(job)
        return importlib.import_module("worker_functions").DiesOnce(each, mark), together

    monkeypatch.setattr("timeloom.curate.pipeline.make_stages", dying)
    found = run("ray", engine)
    assert os.path.exists(mark)
    assert all(one.equals(other) for one, other in zip(found, expected, strict=True))
