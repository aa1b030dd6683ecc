"""The diagonal Gaussian, given by mean and log-variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution, aligned

LOG_2PI = math.log(2 * math.pi)


@dataclass
class DiagonalGaussian(Distribution):
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

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64 of a batch ``(B,)``; row i depends on ``streams[i]`` alone."""
        noise = standard_normal(streams, samples, self.mean.shape[-1]).to(self.mean.device)
        # float64: z − μ would lose its digits where σ is small beside μ
        mean, log_variance = self.mean.detach().double(), self.log_variance.detach().double()
        return mean[:, None] + (0.5 * log_variance).exp()[:, None] * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z ``(..., D)`` or, for a batch ``(B,)``, ``(B, S, D)``; nats."""
        mean, log_variance = aligned(self.mean, z), aligned(self.log_variance, z)
        square = (z - mean).square() * (-log_variance).exp()  # (..., D)
        return -0.5 * (square + log_variance + LOG_2PI).sum(-1)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j), ``(M, N)``, up to the constant −D/2 ln 2π.

        Σ_d (z − μ)²/σ² is one matrix product, so that no M × N × D array is needed.
        """
        # float64: the square is expanded, and its terms cancel; less so about the centre
        mean, log_variance = self.mean.double(), self.log_variance.double()
        centre = mean.mean(0)
        mean, z = mean - centre, z.double() - centre
        precision = (-log_variance).exp()  # (N, D)
        left = torch.cat([z.square(), z, torch.ones_like(z[:, :1])], 1)  # (M, 2D + 1)
        constant = (mean.square() * precision + log_variance).sum(1, keepdim=True)
        right = torch.cat([precision, -2 * mean * precision, constant], 1)
        return -0.5 * left @ right.t()

    def kl_standard(self) -> Tensor:
        """KL from N(0, I), per dimension, ``(..., D)``, in nats."""
        # expm1: near the prior σ² − 1 − ln σ² would otherwise cancel, and round below zero
        return 0.5 * (self.mean.square() + torch.expm1(self.log_variance) - self.log_variance)

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """KL from another, whose shape broadcasts, per dimension, ``(..., D)``, in nats."""
        ratio = self.log_variance - other.log_variance
        square = (self.mean - other.mean).square() * (-other.log_variance).exp()
        return 0.5 * (square + torch.expm1(ratio) - ratio)

    def entropy(self) -> Tensor:
        """Differential entropy, ``(...)``, in nats."""
        return 0.5 * (self.log_variance + LOG_2PI + 1).sum(-1)

    def map(self, change: Callable[[Tensor], Tensor]) -> DiagonalGaussian:
        """The same with ``change`` applied to mean and log-variance."""
        return DiagonalGaussian(change(self.mean), change(self.log_variance))


def standard_normal(streams: Sequence[np.random.Generator], samples: int, dim: int) -> Tensor:
    """Standard normal noise ``(B, S, D)`` float64, a row a stream."""
    return torch.from_numpy(
        np.stack([stream.standard_normal((samples, dim)) for stream in streams])
    )
