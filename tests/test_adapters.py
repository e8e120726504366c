import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from timeloom import adapters
from timeloom.adapters import ADAPTER_FILE, Use, read_adapter, write_adapter
from timeloom.errors import TimeloomError

USE = Use(
    temporal="shift",
    shift_fraction=0.25,
    shift_placement="residual_end",
    num_frames=4,
    fps=8,
    height=16,
    width=24,
    prediction_type="epsilon",
    family={"cross_attention_dim": 6},
)
LORA = {"r": 2, "lora_alpha": 6, "target_modules": {"conv1", "to_q"}}


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture()
def tensors():
    return {
        "block.conv1.lora_A.weight": numbers(2, 5, 3, 3),
        "block.conv1.lora_B.weight": numbers(7, 2, 1, 1),
        "block.to_q.lora_A.weight": numbers(2, 6),
        "block.to_q.lora_B.weight": numbers(4, 2),
        "norm.diff": numbers(9),
        "norm.diff_b": numbers(8),
    }


@pytest.fixture()
def weights():
    """Of the layers that the adapter changes, and of one that it does not."""
    names = {"block.conv1.weight": (7, 5, 3, 3), "block.to_q.weight": (4, 6), "norm.weight": (9,), "norm.bias": (8,)}
    return {name: numbers(*shape, 1)[..., 0] for name, shape in {**names, "other.weight": (3,)}.items()}


@pytest.fixture()
def file(tmp_path, tensors):
    write_adapter(tmp_path / ADAPTER_FILE, USE, tensors, LORA)
    return tmp_path / ADAPTER_FILE


def test_what_is_written_is_read(file, tensors):
    for path in (file, file.parent, str(file)):
        adapter = read_adapter(path)
        assert (adapter.file, adapter.use, adapter.lora_scale) == (file, USE, 3)
        assert adapter.tensors.keys() == tensors.keys()
        assert all(torch.equal(adapter.tensors[key], value) for key, value in tensors.items())
    assert [path.name for path in file.parent.iterdir()] == [ADAPTER_FILE]


def test_one_that_was_fetched_from_the_hub_is_found_by_its_name(file, monkeypatch):
    asked = []

    def fetched(name):
        asked.append(name)
        return file.parent if name == "me/moves" else None

    monkeypatch.setattr(adapters, "fetched", fetched)
    assert read_adapter("me/moves").file == file
    with pytest.raises(TimeloomError, match="no adapter me/other"):
        read_adapter("me/other")
    assert asked == ["me/moves", "me/other"]


def test_the_same_adapter_is_the_same_bytes(tmp_path, tensors):
    """Evaluations know an adapter by its bytes."""
    contents = set()
    for number in range(12):
        write_adapter(tmp_path / f"{number}.safetensors", USE, tensors, {**LORA, "note": 'a "ü"\n/\x01'})
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1
    assert read_adapter(tmp_path / "0.safetensors").use == USE


def test_changes_are_those_of_the_layers_beside_each_other(file, tensors, weights):
    """Convolving with A, then with B, is convolving with the change; and so for linear layers."""
    changed = dict(read_adapter(file).changed(weights, {}, scale=0.5))
    assert changed.keys() == weights.keys() - {"other.weight"}
    images, features = numbers(1, 5, 8, 8), numbers(3, 6)
    conv, linear = torch.nn.functional.conv2d, torch.nn.functional.linear
    a, b = (tensors[f"block.conv1.lora_{name}.weight"] for name in "AB")
    expected = conv(images, weights["block.conv1.weight"]) + 0.5 * 3 * conv(conv(images, a), b)
    torch.testing.assert_close(conv(images, changed["block.conv1.weight"]), expected, rtol=1e-4, atol=1e-4)
    a, b = (tensors[f"block.to_q.lora_{name}.weight"] for name in "AB")
    expected = linear(features, weights["block.to_q.weight"]) + 0.5 * 3 * linear(linear(features, a), b)
    torch.testing.assert_close(linear(features, changed["block.to_q.weight"]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed["norm.weight"], weights["norm.weight"] + 0.5 * tensors["norm.diff"])
    torch.testing.assert_close(changed["norm.bias"], weights["norm.bias"] + 0.5 * tensors["norm.diff_b"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_none_of_it_leaves_the_bits(file, weights, dtype):
    stored = {name: weight.to(dtype) for name, weight in weights.items()}
    for name, weight in read_adapter(file).changed(stored, {}, scale=0.0):
        assert weight.dtype == dtype and torch.equal(weight, stored[name])


def test_another_family_is_refused_by_the_first_tensor(file, weights):
    adapter = read_adapter(file)
    wide = {**weights, "block.to_q.weight": numbers(4, 12)}
    with pytest.raises(
        TimeloomError, match=r"'unet\.block\.to_q\.lora_A\.weight'.*\(4, 6\).*\(4, 12\).*dim is 6 .* 12"
    ):
        list(adapter.changed(wide, {"cross_attention_dim": 12}))
    weights.pop("block.conv1.weight")
    with pytest.raises(TimeloomError, match=r"'unet\.block\.conv1\.lora_A\.weight' has no place"):
        list(adapter.changed(weights, {}))


@pytest.mark.parametrize(
    ("temporal", "predicts", "complaint"),
    [("attention", "epsilon", "the model has 'attention'"), ("none", "v_prediction", "another family")],
)
def test_what_it_goes_with(file, temporal, predicts, complaint):
    adapter = read_adapter(file)
    adapter.require_use("none", "epsilon")
    adapter.require_use("shift", "epsilon")
    with pytest.raises(TimeloomError, match=complaint):
        adapter.require_use(temporal, predicts)


def rewrite(file, changes, **metadata):
    """Change a file's tensors and metadata; None takes one away."""
    with safe_open(file, framework="pt") as opened:
        kept = {**opened.metadata(), **metadata}
    tensors = {key: tensor for key, tensor in {**load_file(file), **changes}.items() if tensor is not None}
    save_file(tensors, file, {key: text for key, text in kept.items() if text is not None})


CONV = "unet.block.conv1.lora_"


@pytest.mark.parametrize(
    ("changes", "metadata", "complaint"),
    [
        ({f"{CONV}A.weight": None}, {}, "not one of a pair"),
        ({f"{CONV}B.weight": None}, {}, "not one of a pair"),
        ({f"{CONV}B.weight": torch.ones(7, 3, 1, 1)}, {}, "of rank 2"),
        ({f"{CONV}B.weight": torch.ones(7)}, {}, "of rank 2"),
        ({"unet.block.conv1.diff": torch.ones(7, 5, 3, 3)}, {}, "not one of a pair"),
        ({f"{CONV}A.weight": torch.full((2, 5, 3, 3), torch.nan)}, {}, r"conv1\.lora_A\.weight' has values"),
        ({"unet.norm.diff": torch.ones(9, dtype=torch.int64)}, {}, "int64"),
        ({"text_encoder.q.lora_A.weight": torch.ones(2, 2)}, {}, "'text_encoder.q.lora_A.weight' is no change"),
        ({"unet.block.conv1.alpha": torch.ones(1)}, {}, "'unet.block.conv1.alpha' is no change"),
        ({}, {"timeloom": None}, "no 'timeloom' in its metadata"),
        ({}, {"timeloom": "{"}, "cannot be read as JSON"),
        ({}, {"timeloom": "[]"}, "JSON object"),
        ({}, {"timeloom": json.dumps({**USE.model_dump(), "temporal": "attention"})}, "temporal"),
        ({}, {"lora_adapter_metadata": None}, "rank and alpha"),
        ({}, {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": NaN}'}, "rank and alpha"),
        ({}, {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": 2, "unet.use_dora": true}'}, "use_dora"),
    ],
)
def test_what_is_wrong_is_named(file, changes, metadata, complaint):
    rewrite(file, changes, **metadata)
    with pytest.raises(TimeloomError, match=complaint) as raised:
        read_adapter(file)
    assert str(file) in str(raised.value)


def test_files_that_are_no_adapters(tmp_path):
    with pytest.raises(TimeloomError, match="There is no adapter"):
        read_adapter(tmp_path / "nothing.safetensors")
    with pytest.raises(TimeloomError, match=f"folder with {ADAPTER_FILE}"):
        read_adapter(tmp_path)
    torch.save({}, tmp_path / "pytorch_lora_weights.bin")
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.bin"):
        with pytest.raises(TimeloomError, match=r"weights\.bin is a pickle"):
            read_adapter(path)
    (tmp_path / ADAPTER_FILE).write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(TimeloomError, match="damaged"):
        read_adapter(tmp_path)
