"""Random weights, and the nowhere in which no weights lie."""

import pytest
import torch
from torch import nn


def randomise(network, seed=0):
    """Every tensor random, batch normalisation included, so that a wrong name or place shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            noise = noise.abs() + 0.5
        elif value.ndim > 1 and not name.endswith("mean"):
            noise = noise * (2 / value[0].numel()) ** 0.5  # keeps the size of activations
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        value.copy_(noise)
    return network.eval()


@pytest.fixture(scope="session")
def random_weights():
    return randomise


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No weights in any of the places; the folder that TIMELOOM_WEIGHTS would name."""
    monkeypatch.delenv("TIMELOOM_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    return tmp_path / "own"


@pytest.fixture(scope="session")
def scripted_tree():
    """A TorchScript module whose tensors have the given dotted names, as torch.jit.save would write a real one."""

    def make(tensors):
        root = nn.Module()
        for name, value in tensors.items():
            *places, leaf = name.split(".")
            node = root
            for place in places:
                if place not in node._modules:
                    node.add_module(place, nn.Module())
                node = node._modules[place]
            if value.is_floating_point():
                node.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
            else:
                node.register_buffer(leaf, value)
        return torch.jit.script(root)

    return make
