"""Weights from every form of file, and every way in which a file may be the wrong one."""

import hashlib
import io
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.torchscript import is_torchscript
from timeloom.evaluate.networks.weights import KnownFile, check_hash, find_file, load_into, read_tensors, same_names

KNOWN = (KnownFile("first.pt", "somewhere", 51_235_320, "ab" * 32, "some/body"), KnownFile("second.pt", "elsewhere"))


class Convolution(nn.Module):
    """Something to script, with all that a module may hold."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.low = nn.Parameter(torch.randn(2, 3).half())
        self.register_buffer("shared", self.layers[0].bias.detach())
        self.register_buffer("part", torch.randn(5, 6)[1:, ::2])
        self.scale = 0.5
        self.sizes = [1, 2]
        self.names = {"a": 1}

    def forward(self, images):
        return self.layers(images) * self.scale


@pytest.fixture
def network(random_weights):
    return random_weights(Convolution())


@pytest.fixture(params=["safetensors", "pt", "legacy", "training", "script", "trace", "more in it"])
def saved(request, network, tmp_path):
    """The same weights in a file of each form."""
    path = tmp_path / ("weights.safetensors" if request.param == "safetensors" else "weights.pt")
    tensors = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    match request.param:
        case "safetensors":
            save_file(tensors, path)
        case "pt":
            torch.save(network.state_dict(), path)
        case "legacy":
            torch.save(tensors, path, _use_new_zipfile_serialization=False)
        case "training":
            torch.save({"state_dict": tensors, "epoch": 3}, path)
        case "script":
            torch.jit.script(network).save(path)
        case "trace":
            torch.jit.trace(network, torch.randn(1, 3, 8, 8)).save(path)
        case _:
            torch.jit.save(torch.jit.script(network), path, _extra_files={"note.txt": "hello"})
    return path


def test_every_form_gives_the_same_tensors(saved, network):
    tensors = read_tensors(saved)
    assert set(tensors) == set(network.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(tensors[name].tensor, value, rtol=0, atol=0)


def test_load_into_fills_a_network_that_has_no_numbers_yet(saved, network):
    with torch.device("meta"):
        empty = Convolution()
    load_into(empty, "it", read_tensors(saved), saved)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(empty.eval()(images), network(images), rtol=0, atol=0)
    assert empty.low.dtype == torch.float32


def test_an_archives_program_is_never_looked_at(network, tmp_path):
    """The tensors come out though the code has been replaced by something that cannot even be compiled."""
    torch.jit.script(network).save(tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_STORED) as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, b"import os; os.abort(" if "/code/" in name else good.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "bad.pt")
    assert set(read_tensors(tmp_path / "bad.pt")) == set(network.state_dict())


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def archive_of(tree, path):
    """A TorchScript archive with a `data.pkl` of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", tree)
        archive.writestr("x/constants.pkl", pickle.dumps(()))
    assert is_torchscript(path)
    return path


@pytest.mark.parametrize(
    "tree",
    [
        pickle.dumps(Bomb(), protocol=2),
        pickle.dumps({"a": [Bomb()]}, protocol=4),
        b"\x80\x02cos\nsystem\nU\x04true\x85R.",
        b"\x80\x02c__torch__.os\nM\n)\x81cposix\nsystem\nb.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02U\x05claimQ.",
    ],
)
def test_an_archive_that_asks_for_more_is_refused(tree, tmp_path, capfd):
    path = archive_of(tree, tmp_path / "evil.pt")
    with pytest.raises(TimeloomError, match=r"evil\.pt"):
        read_tensors(path)
    assert "boom" not in capfd.readouterr().out


def test_a_state_dict_that_asks_for_more_is_refused(tmp_path, capfd):
    torch.save({"weight": torch.zeros(1), "more": Bomb()}, tmp_path / "evil.pt")
    with pytest.raises(TimeloomError, match=r"evil\.pt is a pickle that holds more than weights"):
        read_tensors(tmp_path / "evil.pt")
    assert "boom" not in capfd.readouterr().out


def test_a_file_cut_short_is_named(saved):
    content = saved.read_bytes()
    for share in (0.1, 0.5, 0.98):
        saved.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(TimeloomError, match=r"weights\.(pt|safetensors)"):
            read_tensors(saved)


def test_an_archive_that_promises_more_numbers_than_it_has(network, tmp_path):
    torch.jit.script(network).save(tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name)[: -4 if "/data/" in name else None])
    with pytest.raises(TimeloomError, match=r"bad\.pt is damaged or cut short.*holds fewer than"):
        read_tensors(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("layers.0.weight"), r"missing 1 \(layers\.0\.weight\)"),
        (lambda tensors: tensors.update({"fc.weight": torch.zeros(2)}), r"unknown 1 \(fc\.weight\)"),
        (
            lambda tensors: tensors.update({"low": torch.zeros(3, 2)}),
            r"another shape 1 \(low \(3, 2\) in place of \(2, 3\)",
        ),
        (
            lambda tensors: tensors["layers.0.weight"].fill_(torch.nan),
            "layers.0.weight' has values that are not",
        ),
        (lambda tensors: tensors.update({"low": torch.zeros(2, 3, dtype=torch.int64)}), "'low' is stored as int64"),
    ],
)
def test_another_networks_weights_are_named(network, tmp_path, change, said):
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    change(tensors)
    torch.save(tensors, tmp_path / "weights.pt")
    with pytest.raises(TimeloomError, match=rf"weights\.pt.*{said}"):
        load_into(network, "the tiny network", read_tensors(tmp_path / "weights.pt"), tmp_path / "weights.pt")


def test_counters_of_steps_do_not_matter(network, tmp_path):
    tensors = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(tensors, tmp_path / "weights.pt")
    load_into(Convolution(), "it", read_tensors(tmp_path / "weights.pt"), tmp_path / "weights.pt")


def test_of_several_layouts_the_one_that_fits(network, tmp_path):
    torch.save({f"net.{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.pt")
    fresh = Convolution()
    layouts = (same_names, "net.{}".format)
    load_into(fresh, "it", read_tensors(tmp_path / "weights.pt"), tmp_path / "weights.pt", layouts)
    torch.testing.assert_close(fresh.layers[0].weight, network.layers[0].weight)


def test_the_path_goes_before_the_folder_before_the_caches(nowhere, tmp_path, monkeypatch):
    cached = tmp_path / "torch" / "checkpoints" / "second.pt"
    for path in (nowhere / "second.pt", nowhere / "first.pt", cached, tmp_path / "mine.pt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert find_file("it", KNOWN) == cached
    monkeypatch.setenv("TIMELOOM_WEIGHTS", str(nowhere))
    assert find_file("it", KNOWN) == nowhere / "first.pt"
    assert find_file("it", KNOWN, tmp_path / "mine.pt") == tmp_path / "mine.pt"
    assert find_file("it", KNOWN, cached.parent) == cached


def test_the_hubs_cache_is_looked_into(nowhere, tmp_path):
    snapshot = tmp_path / "hub" / "models--some--body" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "first.pt").write_bytes(b"")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert find_file("it", KNOWN).samefile(snapshot / "first.pt")


def test_without_weights_the_error_says_all(nowhere, monkeypatch):
    with pytest.raises(TimeloomError) as caught:
        find_file("I3D", KNOWN)
    for said in ("I3D", "first.pt (51.2 MB, sha256 abab", "somewhere", "second.pt", "TIMELOOM_WEIGHTS", "hub", "torch"):
        assert said in str(caught.value)
    monkeypatch.setenv("TIMELOOM_WEIGHTS", str(nowhere))
    with pytest.raises(TimeloomError, match=str(nowhere)):
        find_file("I3D", KNOWN)
    with pytest.raises(TimeloomError, match=r"Looked for in .*typo\.pt\."):
        find_file("I3D", KNOWN, nowhere / "typo.pt")


def test_a_wrong_hash_is_named(tmp_path):
    path = tmp_path / "first.pt"
    path.write_bytes(b"something else")
    with pytest.raises(TimeloomError, match=r"first\.pt has 14 bytes and sha256 [0-9a-f]{64}, .* published first\.pt"):
        check_hash(path, KNOWN)
    other = path.rename(tmp_path / "mine.pt")
    assert check_hash(other, KNOWN).sha256 == hashlib.sha256(b"something else").hexdigest()
    assert check_hash(other, KNOWN).path == other


def test_what_is_no_archive(tmp_path):
    assert not is_torchscript(tmp_path)
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    (tmp_path / "weights.pt").write_bytes(buffer.getvalue())
    assert not is_torchscript(tmp_path / "weights.pt")
