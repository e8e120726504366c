"""torch.compile sees the temporal mechanism: one graph, and never the graph of another mechanism."""

import pytest
import torch

from .conftest import ONE_LEVEL, build, clip_inputs

TINY = {
    **ONE_LEVEL,
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}


def networks(*mechanisms):
    """The same weights under several mechanisms: "none", or a placement of the shift."""
    none = build(TINY)
    shifts = {place: build(TINY, "shift", none, shift_placement=place) for place in mechanisms if place != "none"}
    return {"none": none, **shifts} if "none" in mechanisms else shifts


def check_compiled_equals_eager(unets, backend, shapes):
    torch.compiler.reset()
    compiled = {name: torch.compile(unet, fullgraph=True, backend=backend) for name, unet in unets.items()}
    for frames, height, width in shapes:
        inputs = clip_inputs(1, frames, height, width)
        for name, unet in unets.items():  # the mechanisms take turns, so that a shared graph would show
            expected = unet(*inputs).sample
            error = (compiled[name](*inputs).sample - expected).norm() / expected.norm()
            assert error < 1e-5, f"{name} at {frames} frames of {height}x{width}"
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("mechanisms", [("none", "residual_end"), ("residual_start", "residual_end")])
@torch.no_grad()
def test_one_graph_for_each_mechanism_at_any_size(mechanisms):
    check_compiled_equals_eager(networks(*mechanisms), "eager", [(3, 4, 4), (1, 4, 4), (2, 5, 3), (5, 3, 5)])


@pytest.mark.long
@torch.no_grad()
def test_compiled_code_equals_eager():
    check_compiled_equals_eager(networks("none", "residual_end"), "inductor", [(3, 4, 4)])


@pytest.mark.slow
def test_gradients_through_a_compiled_network():
    unet = networks("residual_end")["residual_end"].train()
    inputs = clip_inputs(1, 3, 4, 4)
    unet(*inputs).sample.square().mean().backward()
    expected = [parameter.grad.clone() for parameter in unet.parameters()]
    unet.zero_grad()
    torch.compiler.reset()
    torch.compile(unet, fullgraph=True, backend="aot_eager")(*inputs).sample.square().mean().backward()
    for parameter, gradient in zip(unet.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    torch.compiler.reset()
