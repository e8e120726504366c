import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timeloom.models.cost import fused_attention, measure
from timeloom.models.unet import VideoUNet


class Chain(nn.Module):
    """Two linear layers with something between them that has no matrix product."""

    def __init__(self):
        super().__init__()
        with torch.device("meta"):
            self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


X = torch.empty(3, 8, device="meta")
FLOAT = 4


def test_flops_are_two_for_each_multiplication_and_addition():
    assert measure(chain := Chain(), lambda: chain(X)).flops == 2 * 3 * (8 * 16 + 16 * 4)


def test_the_backward_pass_costs_what_its_products_cost():
    chain = Chain()
    weights_and_inputs = 2 * 3 * (8 * 16 + 2 * 16 * 4)  # the first layer's input wants no gradient
    assert measure(chain, lambda: chain(X), backward=True).flops == 2 * 3 * (8 * 16 + 16 * 4) + weights_and_inputs


def test_memory_counts_what_is_alive_and_weights_and_inputs_are_not_counted():
    chain = Chain()
    cost = measure(chain, lambda: chain(X))
    hidden, result = 3 * 16 * FLOAT, 3 * 4 * FLOAT
    assert (cost.peak_bytes, cost.kept_bytes) == (2 * hidden, result)  # before and after relu; then only the result


def test_a_backward_pass_keeps_what_it_needs():
    chain = Chain()
    cost = measure(chain, lambda: chain(X), backward=True)
    hidden, result = 3 * 16 * FLOAT, 3 * 4 * FLOAT
    assert cost.kept_bytes == hidden + result  # relu's result serves both layers
    assert cost.peak_bytes > cost.kept_bytes


def test_gradients_do_not_pile_up():
    with torch.device("meta"):
        deep = nn.Sequential(*(nn.Linear(64, 64) for _ in range(16)))
    cost = measure(deep, lambda: deep(torch.empty(1, 64, device="meta")), backward=True)
    assert cost.peak_bytes < 3 * 64 * 64 * FLOAT
    assert not any(parameter.grad is not None for parameter in deep.parameters())


@pytest.fixture()
def unet():
    with torch.device("meta"):
        return VideoUNet(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            temporal="shift",
        )


def predict(unet):
    latents, text = torch.empty(1, 16, 4, 16, 16, device="meta"), torch.empty(1, 8, 32, device="meta")
    return unet(latents, 500, text).sample


def test_operations_are_those_of_pytorchs_counter(unet):
    with FlopCounterMode(display=False) as counter, fused_attention():
        predict(unet).sum().backward()
    assert measure(unet, lambda: predict(unet), backward=True).flops == counter.get_total_flops()


def test_checkpointing_trades_memory_for_operations(unet):
    plain = measure(unet, lambda: predict(unet), backward=True)
    unet.enable_gradient_checkpointing()
    recomputed = measure(unet, lambda: predict(unet), backward=True)
    assert recomputed.kept_bytes < 0.3 * plain.kept_bytes
    assert recomputed.peak_bytes < 0.7 * plain.peak_bytes
    assert 1.2 < recomputed.flops / plain.flops < 4 / 3


def test_attention_is_counted_without_its_matrix_and_the_function_comes_back():
    before = F.scaled_dot_product_attention
    query = torch.empty(2, 3, 100, 8, device="meta")
    key = torch.empty(2, 3, 50, 8, device="meta")
    cost = measure(nn.Module(), lambda: F.scaled_dot_product_attention(query, key, key))
    assert cost.flops == 2 * (2 * 2 * 3 * 100 * 50 * 8)
    assert cost.peak_bytes < 2 * 3 * 100 * 50 * FLOAT
    assert F.scaled_dot_product_attention is before
