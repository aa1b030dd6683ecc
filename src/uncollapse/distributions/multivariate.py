"""The Gaussian with a full covariance: what stands in for a distribution without a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import LOG_2PI, standard_normal

SHRINKAGE = 1e-6  # of the mean variance, added to each: a covariance must have an inverse


@dataclass
class MultivariateGaussian(Distribution):
    """N(mean, factor · factorᵀ).

    Parameters
    ----------
    mean : Tensor
        ``(B, D)`` float64.
    factor : Tensor
        ``(B, D, D)`` float64: lower Cholesky factors of the covariances.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, samples: Tensor) -> MultivariateGaussian:
        """Mean and covariance of samples ``(B, S, D)``."""
        samples = samples.double()
        mean = samples.mean(1)  # (B, D)
        centred = samples - mean[:, None]
        covariance = centred.mT @ centred / (samples.shape[1] - 1)  # (B, D, D)
        variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)  # (B,)
        ridge = (SHRINKAGE * variance + 1e-12)[:, None, None]
        eye = torch.eye(samples.shape[-1], dtype=samples.dtype, device=samples.device)
        # of samples that are not finite, NaN: whoever asks for a figure says of which sentence
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * eye)
        return cls(mean, factor.masked_fill((failed > 0)[:, None, None], torch.nan))

    @property
    def covariance(self) -> Tensor:
        """``(B, D, D)``."""
        return self.factor @ self.factor.mT

    def rsample(self) -> Tensor:
        """Draw one sample, ``(B, D)``."""
        noise = torch.randn_like(self.mean)
        return self.mean + (self.factor @ noise[..., None]).squeeze(-1)

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64; row i depends on ``streams[i]`` alone."""
        noise = standard_normal(streams, samples, self.mean.shape[-1]).to(self.mean.device)
        return self.mean[:, None] + noise @ self.factor.mT

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z ``(B, D)`` or ``(B, S, D)``, nats."""
        rows = z[:, None] if z.dim() == 2 else z  # (B, S, D)
        centred = (rows.double() - self.mean[:, None]).mT  # (B, D, S)
        white = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        log_prob = -0.5 * white.square().sum(1) - self._normaliser()[:, None]  # (B, S)
        return log_prob.squeeze(1) if z.dim() == 2 else log_prob

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j), ``(M, N)``, as one matrix product over products of coordinates."""
        centre = self.mean.mean(0)
        mean, z = self.mean - centre, z.double() - centre
        precision = torch.cholesky_inverse(self.factor)  # (N, D, D)
        linear = (precision @ mean[..., None]).squeeze(-1)  # (N, D)
        constant = -0.5 * (mean * linear).sum(-1) - self._normaliser()  # (N,)
        squares = (z[:, :, None] * z[:, None]).flatten(1)  # (M, D²)
        return -0.5 * squares @ precision.flatten(1).t() + z @ linear.t() + constant

    def kl_standard(self) -> Tensor:
        """KL from N(0, I), ``(B, 1)``, nats: it does not split over dimensions."""
        trace = self.factor.square().sum((-2, -1))
        log_determinant = 2 * self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        dim = self.mean.shape[-1]
        kl = 0.5 * (self.mean.square().sum(-1) + trace - dim - log_determinant)
        return kl[:, None]

    def map(self, change: Callable[[Tensor], Tensor]) -> MultivariateGaussian:
        """The same with ``change`` applied to means and factors."""
        return MultivariateGaussian(change(self.mean), change(self.factor))

    def _normaliser(self) -> Tensor:
        """ln of what the exponential is divided by, ``(B,)``."""
        log_diagonal = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_diagonal + 0.5 * self.mean.shape[-1] * LOG_2PI
