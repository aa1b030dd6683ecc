"""The standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import LOG_2PI, DiagonalGaussian
from uncollapse.distributions.multivariate import MultivariateGaussian
from uncollapse.latents.priors.base import Prior


class StandardNormal(Prior):
    """p(z) = N(0, I) in ``dim`` dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    def deviation(self) -> Tensor:
        """1."""
        return torch.ones(self.dim)

    def sample(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing."""
        assert codes is None
        return torch.randn(n, self.dim, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)``, ``(...)``, in nats."""
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior), per dimension for independent ones; None unless Gaussian."""
        if isinstance(posterior, DiagonalGaussian | MultivariateGaussian):
            return posterior.kl_standard()
        return None
