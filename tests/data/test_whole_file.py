import os

import pytest
import torch
from safetensors.torch import save_file

from timeloom.data.whole_file import open_to_others, whole_file


@pytest.fixture(params=[0o022, 0o007, 0o077], ids=oct)
def usual(request):
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_files_are_for_whom_the_user_lets_files_be(tmp_path, usual):
    with whole_file(tmp_path / "one") as file:
        file.write(b"1")
    (tmp_path / "model").mkdir()
    save_file({"weight": torch.ones(2)}, tmp_path / "model" / "weights.safetensors")
    (tmp_path / "model" / "config.json").write_text("{}")
    open_to_others(tmp_path / "model")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {usual}


def test_after_an_error_nothing_is_left(tmp_path):
    (tmp_path / "kept").write_bytes(b"before")
    with pytest.raises(KeyError), whole_file(tmp_path / "kept") as file:
        file.write(b"half")
        raise KeyError
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("kept", b"before")]
