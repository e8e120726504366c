import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from timeloom.errors import TimeloomError
from timeloom.models.space_time import SwapMechanism, TemporalSkip
from timeloom.models.swap import SwapAttention
from timeloom.models.unet import VideoUNet

from .conftest import CONFIGS, ONE_LEVEL, build, clip_inputs

WEIGHTS = "diffusion_pytorch_model.safetensors"
VARIANTS = (
    {},
    {"queries": "none", "skips": False},
    {"queries": "temporal", "window": (0, 0, 0), "feed_forward": False},
    {"queries": "temporal_first", "window": (2, 3, 2), "heads": 1, "width": 0.5},
)


def trained(unet, seed=0):
    """The same network with nothing in its temporal mechanism zero any more."""
    torch.manual_seed(seed)
    for parameter in unet.temporal_mechanism.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return unet


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


# Beginnings


@pytest.mark.parametrize("swap", VARIANTS)
@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_before_training_it_is_the_image_network(swap, frames):
    image = build(CONFIGS["sd2"])
    video = build(CONFIGS["sd2"], "swap", swap=swap)
    report = video.load_state_dict(image.state_dict(), strict=False)
    assert not report.unexpected_keys
    inputs = clip_inputs(2, frames, 7, 5)
    assert torch.equal(video(*inputs).sample, image(*inputs).sample)
    assert relative_error(trained(video)(*inputs).sample, image(*inputs).sample) > 1e-2


@torch.no_grad()
def test_in_every_network_of_the_family(config):
    image = build(config)
    video = build(config, "swap")
    video.load_state_dict(image.state_dict(), strict=False)
    inputs = clip_inputs(1, 2, 9, 5, channels=config.get("in_channels", 4))
    assert torch.equal(video(*inputs).sample, image(*inputs).sample)


def test_an_image_models_folder_loads(tmp_path):
    image = build(CONFIGS["sd1"])
    image.save_pretrained(tmp_path)
    video = VideoUNet.from_pretrained(tmp_path, temporal="swap", swap={"width": 0.5})
    assert video.config.swap["width"] == 0.5
    assert video.config.swap["queries"] == "spatial_first"  # the config tells all options
    inputs = clip_inputs(1, 3)
    with torch.no_grad():
        assert torch.equal(video(*inputs).sample, image(*inputs).sample)
    trained(video).save_pretrained(tmp_path / "again")
    again = VideoUNet.from_pretrained(tmp_path / "again")
    assert again.config.temporal == "swap"
    with torch.no_grad():
        assert relative_error(again(*inputs).sample, video(*inputs).sample) < 1e-5


# Two phases


@pytest.fixture()
def phase_one(tmp_path):
    """The folder of a network that was trained with plain addition."""
    unet = trained(build(CONFIGS["sd1"], "swap", swap={"queries": "none"}))
    unet.save_pretrained(tmp_path / "one")
    return tmp_path / "one"


def test_phase_one_never_computes_swap_attention(monkeypatch):
    unet = build(CONFIGS["sd1"], "swap", swap={"queries": "none"}).train()
    assert not any(isinstance(module, SwapAttention) for module in unet.modules())
    monkeypatch.setattr(F, "scaled_dot_product_attention", count_calls(F.scaled_dot_product_attention, calls := []))
    unet(*clip_inputs(1, 2))
    first = len(calls)
    build(CONFIGS["sd1"], "swap")(*clip_inputs(1, 2))
    assert len(calls) - first > first


def count_calls(function, calls):
    return lambda *args, **options: calls.append(1) or function(*args, **options)


@pytest.mark.parametrize("queries", ["spatial", "temporal", "spatial_first", "temporal_first"])
@torch.no_grad()
def test_at_the_switch_the_output_is_equal_to_the_bit(phase_one, queries):
    one = VideoUNet.from_pretrained(phase_one)
    two = VideoUNet.from_pretrained(phase_one, swap={"queries": queries, "window": (2, 2, 2)})
    inputs = clip_inputs(2, 5, 7, 5)
    assert torch.equal(two(*inputs).sample, one(*inputs).sample)
    assert relative_error(trained(two)(*inputs).sample, one(*inputs).sample) > 1e-3


def test_swap_attention_begins_alike_with_the_same_seed(phase_one):
    def begin():
        torch.manual_seed(5)
        return VideoUNet.from_pretrained(phase_one, swap={}).temporal_mechanism.swaps.state_dict()

    assert all(torch.equal(one, other) for one, other in zip(begin().values(), begin().values(), strict=True))


def test_a_phase_one_of_another_shape_is_told(phase_one):
    with pytest.raises(
        TimeloomError, match=r"another shape than asked for, 'temporal_mechanism\.\S+': \(.*goes on with"
    ):
        VideoUNet.from_pretrained(phase_one, swap={"width": 0.5})


def test_half_a_swap_attention_is_refused(phase_one, tmp_path):
    VideoUNet.from_pretrained(phase_one, swap={}).save_pretrained(tmp_path / "two")
    tensors = load_file(tmp_path / "two" / WEIGHTS)
    for key in (
        "temporal_mechanism.swaps.encoder_0.to_q.weight",
        "temporal_mechanism.convolutions.middle_0_0.conv1.2.bias",
    ):
        fewer = {name: value for name, value in tensors.items() if name != key}
        save_file(fewer, tmp_path / "two" / WEIGHTS)
        with pytest.raises(TimeloomError, match=rf"1 tensor\(s\) missing, first '{key}'"):
            VideoUNet.from_pretrained(tmp_path / "two")


# Where everything stands


def places(unet):
    return {name: sorted(module) for name, module in unet.temporal_mechanism.named_children()}


def test_where_the_modules_stand(config):
    unet = build(config, "swap", swap={"window": (4, 2, 2)})
    found = places(unet)
    blocks = {"encoder": unet.down_blocks, "decoder": unet.up_blocks}
    layers = [
        (f"{stage}_{level}_{i}", hasattr(block, "attentions"), i == len(block.resnets) - 1)
        for stage, own in blocks.items()
        for level, block in enumerate(own)
        for i in range(len(block.resnets))
    ]
    middle = ["middle_0_0", "middle_0_1"]
    assert found["convolutions"] == sorted([name for name, _, _ in layers] + middle)
    assert found["attentions"] == sorted([name for name, text, _ in layers if text] + ["input_0_0", "middle_0_0"])
    assert found["swaps"] == sorted(f"{stage}_{level}" for stage, own in blocks.items() for level in range(len(own)))
    fused = [f"{name}_resnet" for name, text, last in layers if text or not last]
    fused += [f"{name}_transformer" for name, text, last in layers if text and not last]
    fused += ["input_0_0_convolution", "middle_0_0_resnet", "middle_0_0_transformer", "middle_0_1_resnet"]
    assert found["fusions"] == sorted(fused)
    assert found["skips"] == sorted(f"{stage}_{level}" for stage, own in blocks.items() for level in range(1, len(own)))


def test_roles_and_windows_alternate_in_the_order_of_the_forward_pass():
    order = ["encoder_0", "encoder_1", "encoder_2", "decoder_0", "decoder_1", "decoder_2"]
    for queries, asks in (
        ("spatial_first", ["spatial", "temporal"] * 3),
        ("temporal_first", ["temporal", "spatial"] * 3),
        ("temporal", ["temporal"] * 6),
    ):
        swaps = build(CONFIGS["sd1"], "swap", swap={"queries": queries}).temporal_mechanism.swaps
        assert [swaps[name].asks for name in order] == asks
        assert [swaps[name].shift for name in order] == [0, 4] * 3


@torch.no_grad()
def test_temporal_features_skip_across_samplings():
    """What a skip reads is the temporal output at the end of the block before, and what it gives goes to the next
    block's first temporal module alone."""
    unet = trained(build(CONFIGS["sd1"], "swap"))
    mechanism = unet.temporal_mechanism
    seen = {}
    mechanism.attentions["encoder_0_0"].register_forward_hook(lambda _, __, output: seen.update(before=output))
    mechanism.skips["encoder_1"].register_forward_hook(lambda _, args, output: seen.update(read=args[0], gives=output))
    mechanism.convolutions["encoder_1_0"].register_forward_pre_hook(lambda _, args: seen.update(after=args[0]))
    mechanism.fusions["encoder_1_0_resnet"].register_forward_pre_hook(lambda _, args: seen.update(spatial=args[0]))
    unet(*clip_inputs(1, 2, 7, 5))
    assert torch.equal(seen["read"], seen["before"])
    assert seen["gives"].shape[2:] == (4, 3)
    torch.testing.assert_close(seen["after"], seen["spatial"] + seen["gives"])


@torch.no_grad()
def test_a_skip_takes_the_mean_over_each_pixels_area():
    skip = TemporalSkip(2, 2)
    skip.proj.weight.copy_(torch.eye(2)[:, :, None, None])
    x = torch.randn(3, 2, 6, 4)
    torch.testing.assert_close(skip(x, 3, 2), F.avg_pool2d(x, 2))
    torch.testing.assert_close(skip(x, 12, 8), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert skip(x, 5, 3).shape == (3, 2, 5, 3)


# What the network must keep


@torch.no_grad()
def test_wide_screen_goes_down_and_comes_up():
    """The paper's latents, 43 x 24: 43 → 22 → 11."""
    unet = trained(build(CONFIGS["sd1"], "swap", swap={"width": 0.5}))
    assert unet(*clip_inputs(1, 2, 24, 43)).sample.shape == (1, 2, 4, 24, 43)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch():
    unet = trained(build(CONFIGS["sd1"], "swap", swap={"window": (2, 2, 2)}))
    latents, timestep, text = clip_inputs(2, 3)
    together = unet(latents, timestep, text).sample
    assert relative_error(unet(latents[:1], timestep[:1], text[:1]).sample, together[:1]) < 1e-5


@torch.no_grad()
def test_without_its_mechanism_every_frame_is_alone():
    unet = trained(build(CONFIGS["sd1"], "swap"))
    unet.remove_temporal_mechanism()
    latents, timestep, text = clip_inputs(1, 3)
    before = unet(latents, timestep, text).sample
    latents[:, 0] += 1
    assert torch.equal(unet(latents, timestep, text).sample[:, 1:], before[:, 1:])


@pytest.mark.parametrize("swap", VARIANTS)
def test_every_tensor_gets_a_gradient(swap):
    unet = trained(build(CONFIGS["sd2"], "swap", swap=swap)).train()
    unet(*clip_inputs(2, 5, 7, 5)).sample.square().mean().backward()
    named = list(unet.named_parameters())
    assert [name for name, parameter in named if parameter.grad is None or not parameter.grad.any()] == []


def test_gradient_checkpointing_gives_equal_gradients():
    unet = trained(build(CONFIGS["sd1"], "swap")).train()
    inputs = clip_inputs(1, 3, 7, 5)

    def gradients():
        unet.zero_grad()
        unet(*inputs).sample.square().mean().backward()
        return [parameter.grad.clone() for parameter in unet.parameters()]

    plain = gradients()
    unet.enable_gradient_checkpointing()
    assert all(torch.equal(one, other) for one, other in zip(gradients(), plain, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("queries", "sizes"),
    [
        ("spatial_first", [(3, 4, 4)]),
        pytest.param("spatial_first", [(3, 4, 4), (5, 3, 5)], marks=pytest.mark.long),
        pytest.param("none", [(3, 4, 4), (5, 3, 5)], marks=pytest.mark.long),
    ],
)
@torch.no_grad()
def test_one_graph(queries, sizes):
    torch.compiler.reset()
    config = {**ONE_LEVEL, "layers_per_block": 1}
    unet = trained(build(config, "swap", swap={"queries": queries, "window": (2, 2, 2)}))
    compiled = torch.compile(unet, fullgraph=True, backend="eager")
    for frames, height, width in sizes:
        inputs = clip_inputs(1, frames, height, width)
        assert relative_error(compiled(*inputs).sample, unet(*inputs).sample) < 1e-5
    torch.compiler.reset()


# What it refuses


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        ({"heads": 3}, "swap.heads: 3 heads do not divide the 8 channels of Swap-CA at the end of encoder_0"),
        ({"queries": "both"}, "queries"),
        ({"window": (8, 8)}, "window"),
        ({"width": 0}, "width"),
        ({"skip": True}, "Did you mean 'skips'"),
    ],
)
def test_wrong_options_are_one_sentence(swap, message):
    with pytest.raises(TimeloomError, match=message):
        VideoUNet(**CONFIGS["sd1"], temporal="swap", swap=swap)


def test_options_of_another_mechanism_are_not_kept():
    assert build(CONFIGS["sd1"], "shift", swap={"heads": 2}).config.swap is None
    assert isinstance(build(CONFIGS["sd1"], "swap").temporal_mechanism, SwapMechanism)
