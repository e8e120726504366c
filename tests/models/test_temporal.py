import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from timeloom.errors import TimeloomError
from timeloom.models.temporal import TemporalAttention
from timeloom.models.unet import VideoUNet

from .conftest import CONFIGS, ONE_LEVEL, build, clip_inputs

LDM_TEXT2IMG_LARGE = {
    "sample_size": 32,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1280,
    "attention_head_dim": 8,
}
"""The image U-Net that the paper starts from: 872.3 M parameters."""


def trained(attention, seed=0):
    """The same layer with an output projection that is no longer zero."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(attention.attention.to_out[0].weight, std=0.3)
    return attention


# One layer


@torch.no_grad()
def test_attention_by_the_formula():
    """Against softmax(QKᵀ/√d)·V written out for one pixel and one head at a time."""
    channels, heads, frames = 8, 2, 3
    layer = trained(TemporalAttention(channels, heads)).double()
    x = torch.randn(2 * frames, channels, 2, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = layer(x, frames).unflatten(0, (2, frames))
    half = channels // 2
    angles = torch.arange(frames)[:, None] * torch.exp(
        -torch.log(torch.tensor(10_000.0)) * torch.arange(half) / (half - 1)
    )
    positions = torch.cat([angles.sin(), angles.cos()], dim=1).double()
    attention, norm = layer.attention, layer.norm
    for clip in range(2):
        for row in range(2):
            features = x.unflatten(0, (2, frames))[clip, :, :, row, 0]  # (F, C)
            normed = torch.nn.functional.layer_norm(features, (channels,), norm.weight, norm.bias) + positions
            query, key, value = (normed @ part.weight.T for part in (attention.to_q, attention.to_k, attention.to_v))
            mixed = []
            for head in range(heads):
                part = slice(head * channels // heads, (head + 1) * channels // heads)
                scores = query[:, part] @ key[:, part].T / (channels // heads) ** 0.5
                mixed.append(scores.softmax(dim=1) @ value[:, part])
            expected = features + torch.cat(mixed, dim=1) @ attention.to_out[0].weight.T
            torch.testing.assert_close(found[clip, :, :, row, 0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_pixels_and_clips_do_not_mix():
    layer = trained(TemporalAttention(8, 2))
    x = torch.randn(2 * 4, 8, 3, 2)
    changed = x.clone()
    changed[1, 0, 2, 1] += 1.0  # frame 1 of clip 0, one channel of one pixel
    difference = (layer(changed, 4) - layer(x, 4)).abs().amax(dim=1).unflatten(0, (2, 4)) > 0
    assert difference[0, :, 2, 1].all()
    difference[0, :, 2, 1] = False
    assert not difference.any()


@torch.no_grad()
def test_the_order_of_the_frames_matters():
    layer = trained(TemporalAttention(8, 2))
    x = torch.randn(5, 8, 2, 2)
    assert not torch.allclose(layer(x.flip(0), 5).flip(0), layer(x, 5), atol=1e-3)


# In the network


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_before_training_it_is_the_image_network(config, frames):
    image = build(config)
    video = build(config, "attention")
    report = video.load_state_dict(image.state_dict(), strict=False)
    assert not report.unexpected_keys
    inputs = clip_inputs(2, frames, 7, 5, channels=config.get("in_channels", 4))
    assert torch.equal(video(*inputs).sample, image(*inputs).sample)


@torch.no_grad()
def test_one_attention_for_each_transformer(config):
    video = build(config, "attention")
    names = set(video.temporal_mechanism.attentions)
    assert {name for name in names if name.startswith("middle")} == {"middle_0_0"}
    blocks = {"encoder": video.down_blocks, "decoder": video.up_blocks}
    expected = {
        f"{stage}_{level}_{i}"
        for stage, stage_blocks in blocks.items()
        for level, block in enumerate(stage_blocks)
        for i in range(len(getattr(block, "attentions", ())))
    }
    assert names == expected | {"middle_0_0"}


@torch.no_grad()
def test_the_middle_attends_between_its_two_resnets():
    """After its transformer and before its last ResNet block: nothing else would be "after each spatial attention"."""
    video = build({**ONE_LEVEL, "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}, "attention")
    order = []
    for name, module in (
        ("transformer", video.mid_block.attentions[0]),
        ("time", video.temporal_mechanism.attentions["middle_0_0"]),
        ("last conv", video.mid_block.resnets[1].conv1),
    ):
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    video(*clip_inputs(1, 2))
    assert order == ["transformer", "time", "last conv"]


@pytest.mark.parametrize("temporal", ["shift", "attention"])
@torch.no_grad()
def test_without_its_mechanism_it_is_the_image_network_again(temporal):
    video = build(CONFIGS["sd1"], temporal)
    for layer in getattr(video.temporal_mechanism, "attentions", {}).values():
        trained(layer)
    image = build(CONFIGS["sd1"])
    image.load_state_dict(video.state_dict(), strict=temporal == "shift")
    inputs = clip_inputs(2, 3)
    before = video(*inputs).sample
    video.remove_temporal_mechanism()
    assert not torch.allclose(video(*inputs).sample, before, atol=1e-3)
    assert torch.equal(video(*inputs).sample, image(*inputs).sample)
    assert video.config.temporal == "none" and video.state_dict().keys() == image.state_dict().keys()


def test_the_papers_baseline_has_its_size():
    """Latent-VDM: 872.3 M + 49.6 M (facts: 4C² at 16 transformers; beside it, norms and biases of 0.05 M)."""
    with torch.device("meta"):
        video = VideoUNet(**LDM_TEXT2IMG_LARGE, temporal="attention")
        image = UNet2DConditionModel(**LDM_TEXT2IMG_LARGE)
    assert len(video.temporal_mechanism.attentions) == 16
    added = sum(p.numel() for p in video.parameters()) - sum(p.numel() for p in image.parameters())
    squares = sum(4 * layer.norm.weight.numel() ** 2 for layer in video.temporal_mechanism.attentions.values())
    assert squares == 49_561_600
    assert squares < added < 1.002 * squares


def test_training_reaches_every_parameter():
    """The zero projection first, and one step later what is behind it."""
    video = build(CONFIGS["sd1"], "attention").train()
    inputs = clip_inputs(2, 3)
    for _ in range(2):
        video.zero_grad()
        video(*inputs).sample.square().mean().backward()
        with torch.no_grad():
            for parameter in video.parameters():
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad.any() for parameter in video.parameters())


# Files


@torch.no_grad()
def test_saving_and_loading_changes_nothing(tmp_path):
    video = build(CONFIGS["sd1"], "attention")
    for attention in video.temporal_mechanism.attentions.values():
        trained(attention)
    video.save_pretrained(tmp_path)
    loaded = VideoUNet.from_pretrained(tmp_path)
    assert loaded.config.temporal == "attention"
    inputs = clip_inputs(1, 3)
    wanted, found = video.state_dict(), loaded.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    # Where a tensor lies in memory may decide the last bit.
    torch.testing.assert_close(loaded(*inputs).sample, video(*inputs).sample, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_an_image_folder_gains_attention(tmp_path):
    torch.manual_seed(0)
    UNet2DConditionModel(**CONFIGS["sd1"]).save_pretrained(tmp_path)
    video = VideoUNet.from_pretrained(tmp_path, temporal="attention")
    image = VideoUNet.from_pretrained(tmp_path)
    assert not any(parameter.is_meta for parameter in video.parameters())
    inputs = clip_inputs(1, 3)
    assert torch.equal(video(*inputs).sample, image(*inputs).sample)
    again = VideoUNet.from_pretrained(tmp_path, temporal="attention").state_dict()
    assert {name for name, value in video.state_dict().items() if not again[name].isfinite().all()} == set()


def test_a_folder_with_half_an_attention_is_refused(tmp_path):
    build(CONFIGS["sd1"], "attention").save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["temporal_mechanism.attentions.middle_0_0.norm.weight"]
    save_file(tensors, file)
    with pytest.raises(TimeloomError, match=r"1 tensor\(s\) missing, first 'temporal_mechanism.*middle_0_0\.norm"):
        VideoUNet.from_pretrained(tmp_path)
