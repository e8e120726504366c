"""RCAN against a plain re-statement of the paper's equations (arXiv 1807.02758), and its files."""

import pytest
import torch
import torch.nn.functional as F

from timeloom.errors import TimeloomError
from timeloom.models.rcan import DIV2K_MEAN, RCAN, Discriminator, rcan_config

TINY = {"num_groups": 2, "num_blocks": 2, "width": 8, "reduction": 4}


def tiny(scale: int = 4, **changes) -> RCAN:
    torch.manual_seed(0)
    return RCAN(**{**TINY, "scale": scale, **changes}).eval()


def conv(tensors, name, x):
    weight = tensors[f"{name}.weight"]
    return F.conv2d(x, weight, tensors[f"{name}.bias"], padding=weight.shape[-1] // 2)


def by_the_equations(tensors, x, config):
    """Eq. 1 to 11, with the names of the authors' code."""
    mean = config["pixel_range"] * torch.tensor(DIV2K_MEAN)[:, None, None]
    f0 = conv(tensors, "head.0", x * config["pixel_range"] - mean)
    g = f0
    for group in range(config["num_groups"]):
        f = g
        for block in range(config["num_blocks"]):
            name = f"body.{group}.body.{block}.body"
            residual = conv(tensors, f"{name}.2", conv(tensors, f"{name}.0", f).relu())
            z = residual.mean(dim=(2, 3), keepdim=True)
            s = conv(tensors, f"{name}.3.conv_du.2", conv(tensors, f"{name}.3.conv_du.0", z).relu()).sigmoid()
            f = f + s * residual
        g = g + conv(tensors, f"body.{group}.body.{config['num_blocks']}", f)
    fd = f0 + conv(tensors, f"body.{config['num_groups']}", g)
    for place in (0, 2) if config["scale"] == 4 else (0,):
        step = 2 if config["scale"] == 4 else config["scale"]
        fd = F.pixel_shuffle(conv(tensors, f"tail.0.{place}", fd), step)
    return (conv(tensors, "tail.1", fd) + mean) / config["pixel_range"]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("pixel_range", [1.0, 255.0])
def test_it_is_what_the_equations_say_at_any_size(scale: int, pixel_range: float) -> None:
    network = tiny(scale, pixel_range=pixel_range)
    for height, width in ((7, 11), (1, 1), (2, 5)):
        x = torch.rand(2, 3, height, width)
        with torch.no_grad():
            made = network(x)
            plain = by_the_equations(network.state_dict(), x, network.config)
        assert made.shape == (2, 3, scale * height, scale * width)
        torch.testing.assert_close(made, plain, atol=2e-6, rtol=1e-5)


def test_without_weights_it_gives_the_mean_colour() -> None:
    network = tiny()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        made = network(torch.rand(1, 3, 4, 4))
    torch.testing.assert_close(made, torch.tensor(DIV2K_MEAN)[None, :, None, None].expand_as(made))


def test_the_papers_preset_is_the_default() -> None:
    config = RCAN().config
    assert (config.num_groups, config.num_blocks, config.width, config.reduction, config.scale) == (1, 8, 64, 16, 4)
    assert sum(p.numel() for p in RCAN().parameters()) == 968_291


def test_the_authors_names_and_shapes_tell_the_config() -> None:
    names = set(tiny().state_dict())
    assert {
        "head.0.weight",
        "body.0.body.1.body.3.conv_du.2.bias",
        "body.2.weight",
        "tail.0.2.weight",
        "tail.1.bias",
    } <= names
    assert {"sub_mean.weight", "add_mean.bias"} <= names
    for scale in (2, 3, 4):
        for pixel_range in (1.0, 255.0):
            network = tiny(scale, pixel_range=pixel_range)
            found = rcan_config(network.state_dict())
            assert found == {name: network.config[name] for name in found}
    with pytest.raises(TimeloomError, match="not those of an RCAN"):
        rcan_config({"conv_first.weight": torch.zeros(1)})
    with pytest.raises(TimeloomError, match="scale"):
        RCAN(scale=8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_pixel_sees_no_further_than_the_tails_reach(scale: int) -> None:
    network = tiny(scale)
    features = torch.zeros(1, 8, 15, 15, requires_grad=True)
    middle = scale * 7
    network.reconstruct(features)[0, :, middle : middle + scale, middle : middle + scale].sum().backward()
    seen = features.grad.abs().sum(dim=(0, 1)).nonzero()
    reach = int((seen - 7).abs().max())
    assert 0 < reach <= network.tail_reach


def test_the_discriminator_judges_each_pixel_and_its_layers_are_bounded() -> None:
    torch.manual_seed(0)
    network = Discriminator(width=8)
    for _ in range(30):  # the power iteration settles
        logits = network(torch.rand(1, 3, 24, 32))
    assert logits.shape == (1, 1, 24, 32)
    network.eval()
    for layer in (*network.down, *network.up):
        matrix = layer.weight.flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.05)
