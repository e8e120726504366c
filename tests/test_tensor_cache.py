"""What is kept in files comes back as it was, or is known to be damaged."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timeloom.tensor_cache import DamagedFile, TensorCache, fingerprint

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


@given(st.lists(st.integers(0, 4), max_size=4), st.integers(0, 2**31), st.sampled_from(DTYPES))
def test_what_is_kept_comes_back(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], seed: int, dtype: torch.dtype
) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    files = TensorCache(tmp_path_factory.mktemp("kept"), "settings")
    path = files.path("item", seed)
    assert files.get(path) is None
    files.put(path, value)
    found = files.get(path)
    assert found is not None and found.dtype == dtype and torch.equal(found, value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_a_changed_byte_is_found(tmp_path: Path, place: float, capsys: pytest.CaptureFixture[str]) -> None:
    files = TensorCache(tmp_path)
    path = files.path(1)
    files.put(path, torch.arange(64).half())
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=path.name):
        files.read(path)
    assert files.get(path) is None and not path.exists()
    assert f"{path}: is damaged. It is made again." in capsys.readouterr().err


def test_half_a_file_is_found(tmp_path: Path) -> None:
    files = TensorCache(tmp_path)
    path = files.path(1)
    files.put(path, torch.arange(64).half())
    for size in (0, 4, 50, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DamagedFile):
            files.read(path)


def test_networks_are_told_apart_by_value_and_by_configuration() -> None:
    def network(bias: float = 0.0) -> torch.nn.Linear:
        torch.manual_seed(0)
        linear = torch.nn.Linear(3, 3)
        linear.bias.data.fill_(bias)
        return linear

    configured = network()
    configured.config = {"scaling_factor": 0.2}
    assert fingerprint(network()) == fingerprint(network())
    assert len({fingerprint(network()), fingerprint(network(1e-6)), fingerprint(configured)}) == 3
