"""C3D against its description, written a second time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.c3d import C3D, load_c3d, pool


@pytest.fixture(scope="module")
def network(random_weights):
    return random_weights(C3D())


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """A file with our names; weights as fp16 to keep it small."""
    path = tmp_path_factory.mktemp("c3d") / "c3d.safetensors"
    save_file({name: value.half() for name, value in network.state_dict().items()}, path)
    return path


def test_parameters_are_those_of_the_paper(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == 78_409_573
    assert list(network.state_dict())[:2] == ["mean", "conv1a.weight"]
    assert network.conv4b.weight.shape == (512, 512, 3, 3, 3)
    assert network.fc6.weight.shape == (4096, 8192)
    assert network.fc8.weight.shape == (101, 4096)


@pytest.mark.parametrize("length", [6, 7])
def test_pooling_covers_what_is_left_over(length):
    values = torch.randn(1, 2, 2, length, length)
    filled = F.pad(values, (0, length % 2, 0, length % 2), value=-torch.inf)
    windows = filled.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2)
    assert torch.equal(pool(values, (2, 2, 2)), windows.amax(dim=(5, 6, 7)))
    assert pool(values, (1, 2, 2)).shape == (1, 2, 2, (length + 1) // 2, (length + 1) // 2)


def test_a_clip_gives_what_the_description_says(network, saved):
    clips = np.random.default_rng(0).integers(0, 256, (1, 16, 64, 80, 3), dtype=np.uint8)
    extractor = load_c3d(saved)
    tensors = extractor.network.state_dict()
    values = torch.from_numpy(clips[0, ..., ::-1].copy()).permute(3, 0, 1, 2).float()
    values = F.interpolate(values, (112, 112), mode="bilinear", align_corners=True)[None] - tensors["mean"]
    for names, kernel in (
        (["1a"], (1, 2, 2)),
        (["2a"], (2, 2, 2)),
        (["3a", "3b"], (2, 2, 2)),
        (["4a", "4b"], (2, 2, 2)),
        (["5a", "5b"], (2, 2, 2)),
    ):
        for name in names:
            weight, bias = tensors[f"conv{name}.weight"], tensors[f"conv{name}.bias"]
            values = F.conv3d(values, weight, bias, padding=1).clamp(min=0)
        odd = values.shape[-1] % 2
        values = F.max_pool3d(F.pad(values, (0, odd, 0, odd)), kernel)
    assert values.shape == (1, 512, 1, 4, 4)
    values = values.flatten(1)
    for name in ("fc6", "fc7"):
        values = (values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]).clamp(min=0)
    assert values.std() > 1e-3
    np.testing.assert_allclose(extractor.features(clips), values, rtol=1e-3, atol=1e-3 * float(values.std()))
    logits = values @ tensors["fc8.weight"].T + tensors["fc8.bias"]
    np.testing.assert_allclose(extractor.logits(clips), logits, rtol=1e-3, atol=1e-3 * float(logits.std()))


def test_the_pair_of_files_of_tganv2(network, tmp_path):
    arrays = {
        name.replace(".weight", "/W").replace(".bias", "/b"): value.numpy()
        for name, value in network.state_dict().items()
        if name != "mean"
    }
    path = tmp_path / "conv3d_deepnetA_ucf.npz"
    np.savez(path, **arrays)
    with pytest.raises(TimeloomError, match=r"needs mean2\.npz"):
        load_c3d(path)
    mean = np.random.default_rng(0).uniform(80, 110, (3, 16, 128, 171)).astype(np.float32)
    np.savez(tmp_path / "mean2.npz", mean=mean)
    loaded = load_c3d(tmp_path).network
    assert torch.equal(loaded.conv5b.weight, network.conv5b.weight)
    assert torch.equal(loaded.fc8.bias, network.fc8.bias)
    np.testing.assert_array_equal(loaded.mean, mean[:, :, 8:120, 8:120])
    np.savez(tmp_path / "mean2.npz", mean=mean[:, :3])
    with pytest.raises(TimeloomError, match=r"mean2\.npz must hold the mean"):
        load_c3d(path)
    np.savez(tmp_path / "mean2.npz", mean=np.array([object()]))
    with pytest.raises(TimeloomError, match=r"mean2\.npz is no whole \.npz file"):
        load_c3d(path)


def test_what_is_not_c3d_is_refused(nowhere, scripted_tree, tmp_path):
    scripted_tree({"conv1.weight": torch.zeros(64, 3, 3, 3, 3)}).save(tmp_path / "c3d_ucf101.pt")
    with pytest.raises(TimeloomError, match=r"c3d_ucf101\.pt does not hold .* C3D .* unknown 1 \(conv1\.weight\)"):
        load_c3d(tmp_path)
    with pytest.raises(TimeloomError, match=r"conv3d_deepnetA_ucf\.npz .*mean2\.npz beside it.*c3d_ucf101\.pt"):
        load_c3d()


def test_only_sixteen_frames(saved):
    with pytest.raises(TimeloomError, match="c3d takes clips of 16 frames, and these have 17"):
        load_c3d(saved).features(np.zeros((1, 17, 32, 32, 3), np.uint8))
