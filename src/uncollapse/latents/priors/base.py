"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from uncollapse.distributions.gaussian import DiagonalGaussian


class Prior(nn.Module, ABC):
    """p(z) of one latent of D dimensions."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)``, ``(...)``, in nats."""

    @abstractmethod
    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(posterior ‖ prior) per dimension, ``(..., D)``, in nats."""
