"""The standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor

from uncollapse.distributions.gaussian import LOG_2PI, DiagonalGaussian
from uncollapse.latents.priors.base import Prior


class StandardNormal(Prior):
    """p(z) = N(0, I) in ``dim`` dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing."""
        return torch.randn(n, self.dim, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)``, ``(...)``, in nats."""
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(posterior ‖ prior) per dimension, ``(..., D)``, in nats."""
        return posterior.kl_standard()
