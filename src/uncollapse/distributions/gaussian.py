"""The diagonal Gaussian, given by mean and log-variance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


@dataclass
class DiagonalGaussian:
    """N(mean, diag(exp(log_variance))) over the last dimension.

    Parameters
    ----------
    mean, log_variance : Tensor
        ``(..., D)``, of one shape.
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """``(..., D)``."""
        return self.log_variance.exp()

    def rsample(self, noise: Tensor | None = None) -> Tensor:
        """Draw one reparameterised sample, ``(..., D)``.

        Parameters
        ----------
        noise : Tensor, optional
            Standard normal noise that broadcasts against ``mean``; drawn if not given.
        """
        if noise is None:
            noise = torch.randn_like(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z``, ``(...)``, in nats."""
        square = (z - self.mean).square() * (-self.log_variance).exp()  # (..., D)
        return -0.5 * (square + self.log_variance + LOG_2PI).sum(-1)

    def kl_standard(self) -> Tensor:
        """KL from N(0, I), per dimension, ``(..., D)``, in nats."""
        # expm1: near the prior σ² − 1 − ln σ² would otherwise cancel, and round below zero
        return 0.5 * (self.mean.square() + torch.expm1(self.log_variance) - self.log_variance)

    def entropy(self) -> Tensor:
        """Differential entropy, ``(...)``, in nats."""
        return 0.5 * (self.log_variance + LOG_2PI + 1).sum(-1)

    def __getitem__(self, rows: Tensor | slice | int) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean[rows], self.log_variance[rows])


def concatenate(parts: list[DiagonalGaussian]) -> DiagonalGaussian:
    """Join independent Gaussians over the same batch into one, dimensions side by side."""
    return DiagonalGaussian(
        torch.cat([part.mean for part in parts], -1),
        torch.cat([part.log_variance for part in parts], -1),
    )
