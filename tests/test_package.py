import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

import timeloom
from timeloom import recipes, zoo
from timeloom.errors import TimeloomError


def test_importing_the_package_does_not_import_torch():
    rooms = "timeloom, timeloom.data, timeloom.zoo, timeloom.recipes, timeloom.evaluate.metrics"
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_exported_names_are_found_where_they_live():
    from timeloom.generate.pipeline import TextToVideoPipeline
    from timeloom.models.unet import VideoUNet

    assert timeloom.TextToVideoPipeline is TextToVideoPipeline
    assert timeloom.VideoUNet is VideoUNet
    assert set(timeloom.__all__) <= set(dir(timeloom))
    with pytest.raises(AttributeError, match="VideoUnet"):
        _ = timeloom.VideoUnet


def test_the_default_model_comes_first():
    assert zoo.generators() == [zoo.DEFAULT, *sorted(set(zoo.generators()) - {zoo.DEFAULT})]


def test_zoo_names_and_paths(tmp_path, monkeypatch):
    (tmp_path / "zoo" / "digits-shift").mkdir(parents=True)
    (tmp_path / "zoo" / "digits-shift" / "model_index.json").write_text("{}")
    (tmp_path / "zoo" / "__pycache__").mkdir()
    (tmp_path / "weights.ckpt").write_bytes(b"")
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    assert zoo.names() == ["digits-shift"]
    assert zoo.resolve("digits-shift") == tmp_path / "zoo" / "digits-shift"
    assert zoo.resolve(tmp_path) == tmp_path
    with pytest.raises(TimeloomError, match="Did you mean 'digits-shift'"):
        zoo.resolve("digit-shift")
    with pytest.raises(TimeloomError, match="is a file"):
        zoo.resolve(tmp_path / "weights.ckpt")
    with pytest.raises(TimeloomError, match="no model folder"):
        zoo.resolve(tmp_path / "absent")
    with pytest.raises(TimeloomError, match="Unknown model ''"):
        zoo.resolve("")


def test_recipes_by_path_and_by_name(tmp_path, monkeypatch):
    packaged = tmp_path / "packaged" / "digits" / "video_shift.yaml"
    packaged.parent.mkdir(parents=True)
    packaged.write_text("task: video\n")
    own = tmp_path / "own.yaml"
    own.write_text("task: image\n")
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    assert recipes.names() == ["digits/video_shift"]
    for name in ("recipes/digits/video_shift.yaml", "digits/video_shift.yaml", "digits/video_shift"):
        assert recipes.find(name) == packaged
    assert recipes.find("own.yaml").samefile(own)
    for name in ("digits/vidoe_shift", "video_shift", "../own"):
        with pytest.raises(TimeloomError, match="digits/video_shift"):
            recipes.find(name)


def test_core_requirements_are_pinned_and_free_of_torchvision(project):
    def name(requirement):
        return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-")

    lines = (project / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name(pin) for pin in pins}
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = settings["optional-dependencies"]
    tested = [*settings["dependencies"], *extras["dev"]]
    assert {name(requirement) for requirement in tested} <= pinned
    assert pins["torch"] == "2.13.0"
    assert "torchvision" not in pinned


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(project, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", str(project)]
    subprocess.run([*command, "--wheel-dir", str(tmp_path)], check=True, stdin=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    source = project / "src"
    files = [path.relative_to(source) for path in (source / "timeloom").rglob("*") if path.is_file()]
    wanted = {
        file.as_posix() for file in files if not any(part[0] == "." or part == "__pycache__" for part in file.parts)
    }
    assert wanted <= packed
    assert "timeloom/py.typed" in packed
    for name in zoo.names():
        assert any(file.startswith(f"timeloom/zoo/{name}/") and file.endswith(".safetensors") for file in packed)
    for name in recipes.names():
        assert f"timeloom/recipes/{name}.yaml" in packed
    assert any(file.endswith("licenses/LICENSE") for file in packed)


def test_citation_names_both_papers(project):
    citation = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    identifiers = {entry["identifiers"][0]["value"] for entry in citation["references"]}
    assert identifiers == {"arXiv:2304.08477", "arXiv:2305.10874"}
