"""I3D against its own description, written a second time from the other port's names and TensorFlow's other formula."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks import i3d
from timeloom.evaluate.networks.i3d import FILES, I3D, I3DFeatures, load_i3d, max_pool_same, pad_same, same_padding


def pads_of_tensorflow(size, kernel, stride):
    """The other formula of TensorFlow's guide, by the remainder."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


def second_same(values, kernel, stride, filling):
    sides = [pads_of_tensorflow(*axis) for axis in zip(values.shape[2:], kernel, stride, strict=True)]
    return F.pad(values, (*sides[2], *sides[1], *sides[0]), value=filling)


def second_i3d(tensors, videos):
    """Logits by the names of the port in StyleGAN-V's file."""

    def unit(values, name, stride=(1, 1, 1)):
        kernel = tensors[f"{name}.conv3d.weight"]
        values = F.conv3d(second_same(values, kernel.shape[2:], stride, 0.0), kernel, stride=stride)
        mean, var, weight, bias = (
            tensors[f"{name}.batch3d.{part}"][:, None, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((values - mean) / (var + 0.001).sqrt() * weight + bias).clamp(min=0)

    def pool(values, kernel, stride):
        return F.max_pool3d(second_same(values, kernel, stride, 0.0), kernel, stride)

    def mixed(values, name):
        first = unit(values, f"{name}.branch_0")
        second = unit(unit(values, f"{name}.branch_1.0"), f"{name}.branch_1.1")
        third = unit(unit(values, f"{name}.branch_2.0"), f"{name}.branch_2.1")
        return torch.cat([first, second, third, unit(pool(values, (3, 3, 3), (1, 1, 1)), f"{name}.branch_3.1")], 1)

    values = pool(unit(videos, "conv3d_1a_7x7", (2, 2, 2)), (1, 3, 3), (1, 2, 2))
    values = pool(unit(unit(values, "conv3d_2b_1x1"), "conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for place in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        if place == "4b":
            values = pool(values, (3, 3, 3), (2, 2, 2))
        if place == "5b":
            values = pool(values, (2, 2, 2), (2, 2, 2))
        values = mixed(values, f"mixed_{place}")
    values = values.unfold(2, 2, 1).unfold(3, 7, 1).unfold(4, 7, 1).mean(dim=(5, 6, 7))
    head = tensors["conv3d_0c_1x1.conv3d.weight"][:, :, 0, 0, 0]
    logits = torch.einsum("bcthw,kc->bkthw", values, head)
    return logits.mean(dim=(2, 3, 4)) + tensors["conv3d_0c_1x1.conv3d.bias"]


OTHER = (
    (r"^(Conv3d|Mixed)_", lambda found: found[0].lower()),
    (r"^logits\.", "conv3d_0c_1x1."),
    (r"\.bn\.", ".batch3d."),
    (r"\.b0\.", ".branch_0."),
    (r"\.b3b\.", ".branch_3.1."),
    (r"\.b(\d)a\.", r".branch_\1.0."),
    (r"\.b(\d)b\.", r".branch_\1.1."),
)


def other_name(name):
    for pattern, replacement in OTHER:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.fixture(scope="module")
def network(random_weights):
    return random_weights(I3D())


@pytest.fixture(scope="module")
def stylegan_v(network):
    """The same tensors under the other port's names."""
    return {other_name(name): value for name, value in network.state_dict().items()}


def test_parameters_and_names_are_those_of_the_published_files(network):
    names = network.state_dict()
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264
    stored = sum(value.numel() * 4 for name, value in names.items() if "num_batches" not in name)
    assert 0 < FILES[2].size - stored < 64_000  # rgb_imagenet.pt: these tensors, their names, and no room for another
    assert len([name for name in names if "num_batches" not in name]) == 57 * 5 + 2
    for name, shape in {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_1a_7x7.bn.running_var": (64,),
        "Conv3d_2c_3x3.conv3d.weight": (192, 64, 3, 3, 3),
        "Mixed_3b.b0.conv3d.weight": (64, 192, 1, 1, 1),
        "Mixed_4f.b2b.conv3d.weight": (128, 32, 3, 3, 3),
        "Mixed_5c.b3b.bn.bias": (128,),
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }.items():
        assert names[name].shape == shape


@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_is_tensorflows(kernel, stride):
    for size in range(1, 30):
        before, after = same_padding(size, kernel, stride)
        assert (before, after) == pads_of_tensorflow(size, kernel, stride)
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
        assert after - before in (0, 1)


def test_padding_goes_to_the_right_sides():
    values = torch.ones(1, 1, 4, 5, 6)
    padded = pad_same(values, (1, 2, 3), (1, 1, 2))
    assert padded.shape == (1, 1, 4, 6, 7)
    assert padded[0, 0, 0, 0].tolist() == [1] * 6 + [0]
    assert padded[0, 0, :, -1].sum() == 0


def test_padding_never_wins_the_maximum():
    values = -torch.rand(1, 2, 5, 6, 7) - 1
    assert torch.equal(max_pool_same(values, (3, 3, 3), (2, 2, 2)).amax(), values.amax())
    assert max_pool_same(values, (3, 3, 3), (2, 2, 2)).max() < 0


@pytest.mark.parametrize("shape", [(16, 224, 224), (9, 193, 218)])
def test_logits_equal_those_of_the_other_port(network, stylegan_v, shape):
    videos = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = network(videos), second_i3d(stylegan_v, videos)
    assert ours.shape == (1, 400)
    assert ours.std() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(ours.std()))


def test_every_published_form_loads(network, stylegan_v, scripted_tree, tmp_path):
    torch.save(
        {name: value for name, value in network.state_dict().items() if "num_batches" not in name},
        tmp_path / "ours.pt",
        _use_new_zipfile_serialization=False,
    )
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    scripted_tree(stylegan_v).save(tmp_path / "script.pt")
    for path in (tmp_path / "ours.pt", tmp_path / "ours.safetensors", tmp_path / "script.pt"):
        loaded = load_i3d(path)
        assert loaded.source.path == path
        for name, value in network.state_dict().items():
            if "num_batches" not in name:
                assert torch.equal(loaded.network.state_dict()[name], value), name


def test_what_is_not_i3d_is_refused(nowhere, tmp_path):
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "resnet.pt")
    with pytest.raises(TimeloomError, match=r"resnet\.pt does not hold the 287 tensors of I3D of Kinetics-400"):
        load_i3d(tmp_path / "resnet.pt")
    torch.save({}, tmp_path / "rgb_imagenet.pt")
    with pytest.raises(TimeloomError, match=r"not the published rgb_imagenet\.pt .50\.9 MB, sha256 2609088c"):
        load_i3d(tmp_path)
    with pytest.raises(TimeloomError, match=r"i3d_torchscript\.pt .51\.2 MB, sha256 bec6519f.*i3d_pretrained_400\.pt"):
        load_i3d()
    with pytest.raises(TimeloomError, match="Did you mean 'crop'"):
        I3DFeatures(I3D(), None, resize="corp")


class Input(torch.nn.Module):
    """Keeps what the network is given."""

    def forward(self, videos):
        self.videos = videos
        return videos.mean(dim=(2, 3, 4)).repeat(1, 134)[:, :400]


@pytest.fixture
def prepared():
    def run(clips, resize):
        extractor = I3DFeatures(Input(), i3d.Source(None, ""), resize)
        extractor.features(clips)
        return extractor.network.videos

    return run


def test_frames_are_prepared_as_their_code_does(prepared):
    clips = np.random.default_rng(0).integers(0, 256, (1, 9, 60, 91, 3), dtype=np.uint8)
    frames = torch.from_numpy(clips[0]).permute(0, 3, 1, 2).float()
    squashed = F.interpolate(frames.transpose(0, 1)[None], (9, 224, 224), mode="trilinear")[0] / 255 * 2 - 1
    torch.testing.assert_close(prepared(clips, "squash")[0], squashed, rtol=1e-4, atol=1e-4)
    wide = F.interpolate(frames / 255, (224, 340), mode="bilinear")[:, :, :, 58 : 58 + 224]
    torch.testing.assert_close(prepared(clips, "crop")[0], ((wide - 0.5) * 2).transpose(0, 1), rtol=1e-4, atol=1e-4)
    top = prepared(clips, "tf1")[0][:, :, 0, 0]
    torch.testing.assert_close(top, (frames[:, :, 0, 0] / 127.5 - 1).T)
    assert (prepared(clips, "tf1") - prepared(clips, "squash")).abs().max() > 0.1


def test_clips_of_eight_frames_are_too_short(prepared):
    with pytest.raises(TimeloomError, match="i3d takes clips of at least 9 frames, and these have 8"):
        prepared(np.zeros((1, 8, 32, 32, 3), np.uint8), "squash")
