import torch
import torch.nn.functional as F
from torch import nn

from timeloom.model.cost import measure


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


def test_attention_is_counted_without_its_matrix_and_the_function_comes_back():
    before = F.scaled_dot_product_attention
    query = torch.empty(2, 3, 100, 8, device="meta")
    key = torch.empty(2, 3, 50, 8, device="meta")
    cost = measure(nn.Module(), lambda: F.scaled_dot_product_attention(query, key, key))
    assert cost.flops == 2 * (2 * 2 * 3 * 100 * 50 * 8)
    assert cost.peak_bytes < 2 * 3 * 100 * 50 * FLOAT
    assert F.scaled_dot_product_attention is before
