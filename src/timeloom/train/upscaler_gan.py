"""Train the super-resolution network against a discriminator: VideoFactory's vanilla GAN (arXiv 2305.10874, Sec. 3.4).

Both networks are one module with one optimizer. Each term of the loss reaches one of them alone, and both see the
frames of before the step. What they share is the clipping of gradients, by the norm of all of them (decision 48).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timeloom.models.rcan import Discriminator
from timeloom.train.recipe import Recipe
from timeloom.train.task import Batch, SampleRandom
from timeloom.train.upscaler import UpscalerTask


class Adversaries(nn.Module):
    """The upscaler and its discriminator; a forward pass gives the loss of both."""

    def __init__(self, upscaler: nn.Module, discriminator: Discriminator, gan_weight: float) -> None:
        super().__init__()
        self.upscaler, self.discriminator, self.gan_weight = upscaler, discriminator, gan_weight

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(N, 3, h, w) and (N, 3, H, W) in [0, 1]: the sum of both losses, and its terms."""
        made = self.upscaler(small)
        pixel = (made - large).abs().mean()
        with _fixed(self.discriminator):
            deceived = F.softplus(-self.discriminator(made).float()).mean()  # −log D(made), non-saturating
        real = F.softplus(-self.discriminator(large).float()).mean()
        false = F.softplus(self.discriminator(made.detach()).float()).mean()
        terms = {"pixel": pixel, "deceived": deceived, "discriminator": (real + false) / 2}
        loss = pixel + self.gan_weight * deceived + real + false
        return loss, {name: value.detach() for name, value in terms.items()}


class UpscalerGanTask(UpscalerTask):
    """Mean absolute error, and the adversarial loss of Goodfellow et al. (arXiv 1406.2661, Sec. 3)."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        discriminator = Discriminator(**(recipe.model.discriminator or {})).to(device)
        self.network = Adversaries(self.upscaler, discriminator, recipe.loss.gan_weight)

    def loss(self, batch: Batch, random: SampleRandom) -> tuple[Tensor, dict[str, Tensor]]:
        return self.network(*self.pairs(batch, random))


@contextlib.contextmanager
def _fixed(network: nn.Module) -> Iterator[None]:
    """Within, gradients pass through the network and reach none of its parameters."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
