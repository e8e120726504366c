"""FID's Inception against its description, written a second time with poolings by unfolding."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks.inception import (
    FILES,
    BlockE,
    InceptionFeatures,
    InceptionV3,
    average,
    load_inception,
)


@pytest.fixture(scope="module")
def network(random_weights):
    return random_weights(InceptionV3())


def neighbours(values):
    """(B, C, H, W, 9): each pixel's 3×3 neighbours, nan where there are none."""
    return F.pad(values, (1, 1, 1, 1), value=torch.nan).unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)


def second_inception(tensors, images):
    """Features, by names alone."""

    def unit(values, name, stride=1, same=True):
        kernel = tensors[f"{name}.conv.weight"]
        padding = [side // 2 if same else 0 for side in kernel.shape[2:]]
        values = F.conv2d(values, kernel, stride=stride, padding=padding)
        mean, var, weight, bias = (
            tensors[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((values - mean) / (var + 0.001).sqrt() * weight + bias).clamp(min=0)

    def chain(values, name, *parts):
        for part in parts:
            values = unit(values, f"{name}.{part}")
        return values

    def pooled(values, name, maximum=False):
        around = neighbours(values)
        mean = around.nanmean(dim=-1)
        return unit(around.nan_to_num(-torch.inf).amax(dim=-1) if maximum else mean, f"{name}.branch_pool")

    def half(values):
        return F.max_pool2d(values, 3, stride=2)

    def numbered(count, name):
        return [f"{name}_{number}" for number in range(1, count + 1)]

    values = unit(images, "Conv2d_1a_3x3", 2, same=False)
    values = unit(unit(values, "Conv2d_2a_3x3", same=False), "Conv2d_2b_3x3")
    values = half(unit(unit(half(values), "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False))
    for place in ("5b", "5c", "5d"):
        name = f"Mixed_{place}"
        double = chain(values, name, *numbered(3, "branch3x3dbl"))
        five = chain(values, name, *numbered(2, "branch5x5"))
        values = torch.cat([chain(values, name, "branch1x1"), five, double, pooled(values, name)], 1)
    double = chain(values, "Mixed_6a", *numbered(2, "branch3x3dbl"))
    strided = [
        unit(values, "Mixed_6a.branch3x3", 2, same=False),
        unit(double, "Mixed_6a.branch3x3dbl_3", 2, same=False),
    ]
    values = torch.cat([*strided, half(values)], 1)
    for place in ("6b", "6c", "6d", "6e"):
        name = f"Mixed_{place}"
        seven, double = (
            chain(values, name, *numbered(3, "branch7x7")),
            chain(values, name, *numbered(5, "branch7x7dbl")),
        )
        values = torch.cat([chain(values, name, "branch1x1"), seven, double, pooled(values, name)], 1)
    three = unit(chain(values, "Mixed_7a", "branch3x3_1"), "Mixed_7a.branch3x3_2", 2, same=False)
    seven = unit(chain(values, "Mixed_7a", *numbered(3, "branch7x7x3")), "Mixed_7a.branch7x7x3_4", 2, same=False)
    values = torch.cat([three, seven, half(values)], 1)
    for name in ("Mixed_7b", "Mixed_7c"):
        three, double = chain(values, name, "branch3x3_1"), chain(values, name, "branch3x3dbl_1", "branch3x3dbl_2")
        forks = [unit(three, f"{name}.branch3x3_2{side}") for side in "ab"]
        forks += [unit(double, f"{name}.branch3x3dbl_3{side}") for side in "ab"]
        last = pooled(values, name, maximum=name == "Mixed_7c")
        values = torch.cat([chain(values, name, "branch1x1"), *forks, last], 1)
    return values.mean(dim=(2, 3))


def test_parameters_and_names_are_those_of_the_published_file(network):
    names = network.state_dict()
    of_torchvision = 27_161_264 - 3_326_696  # without its second head, of 1000 classes
    assert sum(parameter.numel() for parameter in network.parameters()) == of_torchvision + 8 * 2049
    stored = sum(value.numel() * value.itemsize for value in names.values())
    assert 0 < FILES[0].size - stored < 200_000
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_2.bn.running_mean": (192,),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }.items():
        assert names[name].shape == shape


def test_averages_leave_padding_out():
    values = torch.rand(2, 3, 5, 6)
    torch.testing.assert_close(average(values), neighbours(values).nanmean(dim=-1))
    assert torch.equal(average(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_the_last_block_takes_the_maximum(random_weights):
    values = torch.rand(1, 16, 8, 8)
    block = random_weights(BlockE(16, maximum=True)).requires_grad_(False)
    with_maximum = block(values)
    around = neighbours(values).nan_to_num(-torch.inf).amax(dim=-1)
    torch.testing.assert_close(with_maximum[:, -192:], block.branch_pool(around))
    block.maximum = False
    with_average = block(values)
    assert (with_average - with_maximum)[:, -192:].abs().max() > 1e-2
    torch.testing.assert_close(with_average[:, :-192], with_maximum[:, :-192])


def test_features_equal_those_of_the_second_description(network):
    images = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = network(images), second_inception(network.state_dict(), images)
    assert ours.shape == (1, 2048)
    assert ours.std() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(ours.std()))


def test_weights_come_back_and_logits_have_no_bias(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "ours.pth")
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    clips = np.random.default_rng(0).integers(0, 256, (1, 1, 40, 30, 3), dtype=np.uint8)
    extractor = load_inception(tmp_path / "ours.pth")
    features = extractor.features(clips)
    again = load_inception(tmp_path / "ours.safetensors")
    np.testing.assert_allclose(again.features(clips), features, rtol=1e-5)
    expected = features @ network.fc.weight.detach().numpy().T
    np.testing.assert_allclose(extractor.logits(clips), expected, rtol=1e-3, atol=1e-3)
    assert extractor.protocol["resize"] == "antialias"


class Input(torch.nn.Module):
    """Keeps what the network is given."""

    def forward(self, images):
        self.images = images
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize(("resize", "black", "white"), [("antialias", -1, 127 / 128), ("tf1", -1, 127 / 128)])
def test_ranges(resize, black, white):
    extractor = InceptionFeatures(Input(), None, resize)
    clips = np.stack([np.zeros((2, 20, 30, 3)), np.full((2, 20, 30, 3), 255)]).astype(np.uint8)
    rows = extractor.features(clips)
    assert rows.shape == (4, 3)
    np.testing.assert_allclose(rows[:2], black, rtol=1e-4)
    np.testing.assert_allclose(rows[2:], white, rtol=1e-4)
    assert extractor.network.images.shape == (4, 3, 299, 299)
    np.testing.assert_allclose(InceptionFeatures(Input(), None, "bilinear").features(clips)[2:], 1, rtol=1e-4)


def test_what_is_not_inception_is_refused(nowhere, network, tmp_path):
    tensors = dict(network.state_dict())
    tensors["fc.weight"], tensors["fc.bias"] = tensors["fc.weight"][:1000].clone(), tensors["fc.bias"][:1000].clone()
    torch.save(tensors, tmp_path / "torchvision.pth")
    with pytest.raises(TimeloomError, match=r"torchvision\.pth does not hold .* another shape 2 \(fc\.weight"):
        load_inception(tmp_path / "torchvision.pth")
    torch.save({}, tmp_path / FILES[0].name)
    with pytest.raises(TimeloomError, match=r"not the published pt_inception.* .95\.6 MB, sha256 6726825d"):
        load_inception(tmp_path)
    with pytest.raises(TimeloomError, match=r"FID's Inception-v3 are not here.*95\.6 MB"):
        load_inception()
    with pytest.raises(TimeloomError, match="Did you mean 'bilinear'"):
        InceptionFeatures(network, None, "bilinera")
