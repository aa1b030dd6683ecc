"""The uniform prior on the unit sphere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.von_mises_fisher import (
    VonMisesFisher,
    check_sphere,
    log_sphere_area,
)
from uncollapse.latents.priors.base import Prior


class UniformSphere(Prior):
    """p(z) = 1 / area of S^{D−1}, with respect to the surface measure.

    Parameters
    ----------
    dim : int
        D.

    Raises
    ------
    UserError
        For fewer than two dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_sphere(dim)
        self.dim = dim

    @property
    def deviation(self) -> Tensor:
        """1/√D."""
        return torch.full((self.dim,), self.dim**-0.5)

    def in_support(self, z: Tensor) -> Tensor:
        """The points of the sphere nearest to ``z`` ``(..., D)``, ``(..., D)``."""
        return F.normalize(z, dim=-1)

    def sample(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing."""
        assert codes is None
        return F.normalize(torch.randn(n, self.dim, generator=generator), dim=-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of unit vectors ``z`` ``(..., D)``, ``(...)``, in nats: a constant."""
        return z.new_full(z.shape[:-1], -log_sphere_area(self.dim))

    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior), ``(..., 1)``, nats; None unless von Mises–Fisher."""
        if isinstance(posterior, VonMisesFisher):
            return posterior.kl_uniform()
        return None
