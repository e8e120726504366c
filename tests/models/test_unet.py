import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file

from timeloom.errors import TimeloomError
from timeloom.models.unet import VideoUNet

from .conftest import CONFIGS, ONE_LEVEL, TEXT_TOKENS, TEXT_WIDTH, build, clip_inputs

PLACEMENTS = ("residual_end", "residual_start")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def frame_by_frame(unet, latents, timestep, text):
    """diffusers' own network on every frame, its text and timestep repeated."""
    frames = latents.shape[1]
    noise = unet(
        latents.flatten(0, 1),
        timestep.repeat_interleave(frames),
        encoder_hidden_states=text.repeat_interleave(frames, 0),
    )
    return noise.sample.unflatten(0, (-1, frames))


# The same network as diffusers'


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@torch.no_grad()
def test_none_equals_diffusers_on_each_frame(config, frames, size):
    ours = build(config)
    diffusers = UNet2DConditionModel(**config).eval()
    diffusers.load_state_dict(ours.state_dict())
    inputs = clip_inputs(2, frames, *size, channels=config.get("in_channels", 4))
    assert relative_error(ours(*inputs).sample, frame_by_frame(diffusers, *inputs)) < 1e-6


@torch.no_grad()
def test_none_equals_diffusers_in_double_precision(config):
    ours = build(config).double()
    diffusers = UNet2DConditionModel(**config).eval().double()
    diffusers.load_state_dict(ours.state_dict())
    inputs = clip_inputs(2, 3, 7, 5, channels=config.get("in_channels", 4), dtype=torch.float64)
    assert relative_error(ours(*inputs).sample, frame_by_frame(diffusers, *inputs)) < 1e-12


@pytest.mark.parametrize("temporal", ["none", "shift"])
def test_the_parameters_are_those_of_diffusers(config, temporal):
    ours = {name: value.shape for name, value in build(config, temporal).state_dict().items()}
    diffusers = UNet2DConditionModel(**config).state_dict()
    assert ours == {name: value.shape for name, value in diffusers.items()}


@torch.no_grad()
def test_the_answer_as_a_tuple():
    unet = build(CONFIGS["sd1"])
    inputs = clip_inputs(1, 2)
    assert torch.equal(unet(*inputs, return_dict=False)[0], unet(*inputs).sample)


# Time


@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_shifting_nothing_is_none(config, placement):
    none = build(config)
    shift = build(config, "shift", like=none, shift_fraction=0.0, shift_placement=placement)
    inputs = clip_inputs(2, 3, channels=config.get("in_channels", 4))
    assert torch.equal(shift(*inputs).sample, none(*inputs).sample)


@torch.no_grad()
def test_the_placements_differ_from_each_other_and_from_none():
    none = build(CONFIGS["sd1"])
    inputs = clip_inputs(1, 3)
    answers = [none(*inputs).sample]
    answers += [build(CONFIGS["sd1"], "shift", none, shift_placement=place)(*inputs).sample for place in PLACEMENTS]
    for i, answer in enumerate(answers):
        assert all(relative_error(answer, other) > 1e-3 for other in answers[:i])


@torch.no_grad()
def test_one_frame_is_not_the_image_network():
    """The shift stays in for images: its zeros say that there are no neighbours."""
    none = build(CONFIGS["sd1"])
    inputs = clip_inputs(1, 1)
    assert relative_error(build(CONFIGS["sd1"], "shift", none)(*inputs).sample, none(*inputs).sample) > 1e-3


def frames_that_change(unet, frames, perturbed):
    """Which frames of clip 0 answer differently when one of its frames does; nothing may change in clip 1."""
    latents, timestep, text = clip_inputs(2, frames, 4, 4, dtype=torch.float64)
    before = unet(latents, timestep, text).sample
    latents[0, perturbed] += 1
    difference = (unet(latents, timestep, text).sample - before).abs().amax(dim=(2, 3, 4))
    assert not difference[1].any()
    return [i for i in range(frames) if difference[0, i] > 0]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_reach_is_one_frame_per_resnet_block(layers, placement):
    before_decoder, decoder = layers + 2, layers + 1
    frames = before_decoder + decoder + 3
    unet = build({**ONE_LEVEL, "layers_per_block": layers}, "shift", shift_placement=placement).double()
    back = before_decoder + decoder
    # At residual_start, what the decoder takes from the next frame are channels of its skip connection.
    ahead = before_decoder + (decoder if placement == "residual_end" else 0)
    assert frames_that_change(unet, frames, 0) == list(range(back + 1))
    assert frames_that_change(unet, frames, frames - 1) == list(range(frames - 1 - ahead, frames))


@torch.no_grad()
def test_frames_are_strangers_without_a_mechanism():
    assert frames_that_change(build(ONE_LEVEL).double(), 4, 1) == [1]


@pytest.mark.parametrize("temporal", ["none", "shift"])
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(temporal):
    unet = build(CONFIGS["sd1"], temporal)
    latents, timestep, text = clip_inputs(3, 4)
    together = unet(latents, timestep, text).sample
    for i in range(3):
        alone = unet(latents[i : i + 1], timestep[i : i + 1], text[i : i + 1]).sample
        assert relative_error(together[i : i + 1], alone) < 1e-6


# Inputs


@pytest.mark.parametrize("timestep", [500, 500.0, torch.tensor(500), torch.tensor([500]), torch.tensor([500, 500])])
@torch.no_grad()
def test_timesteps_in_any_form(timestep):
    unet = build(ONE_LEVEL)
    latents, _, text = clip_inputs(2, 2)
    expected = unet(latents, torch.full((2,), 500), text).sample
    assert torch.equal(unet(latents, timestep, text).sample, expected)


@torch.no_grad()
def test_each_clip_has_its_own_timestep():
    unet = build(ONE_LEVEL)
    latents, _, text = clip_inputs(1, 2)
    latents, text = latents.repeat(2, 1, 1, 1, 1), text.repeat(2, 1, 1)
    first, second = unet(latents, torch.tensor([10, 900]), text).sample
    assert relative_error(first, second) > 1e-3


def test_latents_without_frames_are_refused():
    with pytest.raises(ValueError, match=r"\(B, F, C, H, W\), not of shape \(2, 4, 8, 8\)"):
        build(ONE_LEVEL)(torch.zeros(2, 4, 8, 8), 1, torch.zeros(2, TEXT_TOKENS, TEXT_WIDTH))


@pytest.mark.parametrize("texts", [1, 6])
def test_another_number_of_texts_is_refused(texts):
    with pytest.raises(ValueError, match=f"2 clips came with {texts} texts"):
        build(ONE_LEVEL)(torch.zeros(2, 3, 4, 8, 8), 1, torch.zeros(texts, TEXT_TOKENS, TEXT_WIDTH))


# Attention


@torch.no_grad()
def test_text_keys_and_values_are_computed_once_a_clip():
    unet = build(CONFIGS["sd1"], "shift")
    seen = []
    layers = [module for module in unet.modules() if isinstance(module, Attention) and module.is_cross_attention]
    for layer in layers:
        for projection in (layer.to_k, layer.to_v):
            projection.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    unet(*clip_inputs(2, 5))
    assert layers
    assert seen == [(2, TEXT_TOKENS, TEXT_WIDTH)] * (2 * len(layers))


@torch.no_grad()
def test_attention_is_pytorchs_scaled_dot_product(monkeypatch):
    unet = build(CONFIGS["sd2"])
    calls, attend = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or attend(*args, **kw))
    unet(*clip_inputs(1, 2))
    assert len(calls) == sum(isinstance(module, Attention) for module in unet.modules()) > 0


# Files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A VideoUNet with temporal shift and its folder."""
    unet = build(CONFIGS["sd1"], "shift", shift_fraction=0.125, shift_placement="residual_start")
    unet.save_pretrained(tmp_path_factory.mktemp("model") / "unet")
    return unet, tmp_path_factory.getbasetemp() / "model0" / "unet"


@pytest.fixture()
def folder(saved, tmp_path):
    """A copy of that folder, to break."""
    return shutil.copytree(saved[1], tmp_path / "unet")


@torch.no_grad()
def test_saving_and_loading_changes_nothing(saved):
    unet, folder = saved
    loaded = VideoUNet.from_pretrained(folder.parent, subfolder="unet")
    assert not loaded.training
    assert (loaded.config.temporal, loaded.config.shift_fraction) == ("shift", 0.125)
    assert loaded.config.shift_placement == "residual_start"
    inputs = clip_inputs(1, 3)
    assert torch.equal(loaded(*inputs).sample, unet(*inputs).sample)


def test_diffusers_own_class_loads_our_folder_strictly(saved):
    unet, folder = saved
    theirs, info = UNet2DConditionModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in unet.state_dict().items())


@torch.no_grad()
def test_a_diffusers_folder_loads_with_a_mechanism(config, tmp_path):
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**config).eval()
    theirs.save_pretrained(tmp_path)
    inputs = clip_inputs(1, 2, channels=config.get("in_channels", 4))
    image = VideoUNet.from_pretrained(tmp_path)
    assert image.config.temporal == "none"
    assert relative_error(image(*inputs).sample, frame_by_frame(theirs, *inputs)) < 1e-6
    video = VideoUNet.from_pretrained(tmp_path, temporal="shift")
    assert (video.config.temporal, video.config.shift_placement) == ("shift", "residual_end")
    assert relative_error(video(*inputs).sample, image(*inputs).sample) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("conv_in.bias"), r"1 tensor\(s\) missing, first 'conv_in\.bias'"),
        (lambda tensors: tensors.update(stranger=torch.zeros(1)), "unknown to the network, first 'stranger'"),
        (
            lambda tensors: tensors.update({"conv_in.bias": torch.zeros(1, 2)}),
            r"of another shape than asked for, 'conv_in\.bias': \(1, 2\), not \(8,\)",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_wrong_weights_are_refused_by_name(folder, change, message):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(TimeloomError, match=message) as raised:
        VideoUNet.from_pretrained(folder)
    assert str(folder) in str(raised.value)


def test_pickled_weights_are_refused(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(TimeloomError, match="Cannot load the unet") as raised:
        VideoUNet.from_pretrained(folder)
    assert "safetensors" in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize("content", [None, b"\x08\0\0\0\0\0\0\0garbage!"])
def test_damaged_or_absent_weights_are_refused(folder, content):
    (folder / WEIGHTS).unlink()
    if content:
        (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(TimeloomError, match="Cannot load the unet"):
        VideoUNet.from_pretrained(folder)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(TimeloomError, match=r"Cannot load the unet in .*nowhere"):
        VideoUNet.from_pretrained(tmp_path / "nowhere")


def test_an_unknown_mechanism_in_a_folder_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "temporal": "shfit"}))
    with pytest.raises(TimeloomError, match="shift"):
        VideoUNet.from_pretrained(folder)


# What the network refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temporal": "shfit"}, "shfit.*shift"),
        ({"temporal": "shift", "shift_placement": "residual_stop"}, "residual_stop.*residual_start"),
        ({"shift_fraction": 0.6, "temporal": "shift"}, r"shift_fraction.*0\.6"),
        ({"addition_embed_type": "text"}, "addition_embed_type='text'.*SDXL"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"num_class_embeds": 10}, "num_class_embeds=10"),
        ({"mid_block_type": "UNetMidBlock2D"}, "has a UNetMidBlock2D"),
        ({"mid_block_type": None}, "has a NoneType"),
        ({"dual_cross_attention": True}, "no place for this network's DualTransformer2DModel"),
        (
            {"down_block_types": ("SimpleCrossAttnDownBlock2D",), "up_block_types": ("SimpleCrossAttnUpBlock2D",)},
            "has a SimpleCrossAttnDownBlock2D",
        ),
    ],
)
def test_networks_of_another_kind_are_refused(options, message):
    with pytest.raises(TimeloomError, match=message):
        VideoUNet(**{**ONE_LEVEL, **options})


# Gradient checkpointing


def gradients(unet, inputs):
    """The loss's gradient for every parameter, and the bytes that autograd kept for it besides parameters."""
    kept = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    unet.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = unet(*inputs).sample.square().mean()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in unet.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("temporal", ["none", "shift"])
def test_gradient_checkpointing_gives_equal_gradients_for_less_memory(temporal):
    unet = build(CONFIGS["sd1"], temporal).train()
    inputs = clip_inputs(
        1, 3, 9, 7
    )  # latents that need no gradient: reentrant checkpointing would lose the first layers'
    plain, plain_bytes = gradients(unet, inputs)
    assert not unet.is_gradient_checkpointing
    unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing
    recomputed, recomputed_bytes = gradients(unet, inputs)
    assert all(torch.equal(recomputed[name], gradient) for name, gradient in plain.items())
    assert recomputed_bytes < 0.5 * plain_bytes
    unet.disable_gradient_checkpointing()
    assert not unet.is_gradient_checkpointing
    assert gradients(unet, inputs)[1] == plain_bytes
