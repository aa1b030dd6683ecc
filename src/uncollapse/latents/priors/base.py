"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from uncollapse.distributions.base import Distribution


class Prior(nn.Module, ABC):
    """p(z) of one latent of D dimensions.

    Attributes
    ----------
    dim : int
        D.
    deviation : float
        Standard deviation of each dimension: the unit in which a mean is large or small.
    """

    dim: int
    deviation: float

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing."""

    def in_support(self, z: Tensor) -> Tensor:
        """The points nearest to ``z`` ``(..., D)`` that the prior can give, ``(..., D)``."""
        return z

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)``, ``(...)``, in nats."""

    @abstractmethod
    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior) in closed form, nats; None where there is no such form.

        Per dimension, ``(..., D)``, or ``(..., 1)`` where it does not split over dimensions.
        """
