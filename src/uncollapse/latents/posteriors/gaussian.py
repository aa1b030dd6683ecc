"""The diagonal Gaussian posterior, plain, batch-normalised (BN-VAE) or floored (δ-VAE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from uncollapse.config import GaussianPosteriorConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm


class GaussianPosterior(Posterior):
    """q(z|x) = N(μ(x), diag σ²(x)), one linear map of the features.

    Parameters
    ----------
    config : GaussianPosteriorConfig
        ``batch_norm`` normalises μ (Zhu et al. 2020); ``floor`` keeps KL ≥ floor in every
        dimension (Razavi et al. 2019, δ-VAE).
    feature_dim, dim : int
        H and D.
    """

    def __init__(self, config: GaussianPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, 2 * dim, bias=config.bias)
        self.batch_norm = MeanBatchNorm(dim, config.batch_norm.scale) if config.batch_norm else None
        self.floor = config.floor

    def forward(self, features: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """Posterior of features ``(..., H)``; ``mask`` ``(...)`` tells which are real."""
        mean, spread = self.linear(features).chunk(2, -1)  # (..., D) each
        if self.floor is not None:
            return committed(mean, spread, self.floor)
        if self.batch_norm is not None:
            mean = self.batch_norm(mean, mask)
        return DiagonalGaussian(mean, spread)


def committed(raw_mean: Tensor, raw_spread: Tensor, rate: float) -> DiagonalGaussian:
    """A Gaussian whose KL from N(0, 1) is at least ``rate`` nats in every dimension.

    σ lies between the square roots of the two solutions v of ln v − v + 2·rate + 1 = 0, and
    μ ≥ 0 makes up what σ leaves of the rate. Razavi et al. 2019, eq. 8, with the square root
    that the printed equation lacks and without which the bound fails.
    """
    low, high = (math.sqrt(v) for v in variance_limits(rate))
    # the lower limit keeps the root below away from the point where its slope is infinite
    share = torch.sigmoid(raw_spread).clamp(min=1 / 50)
    deviation = low + (high - low) * share
    log_variance = 2 * deviation.log()
    rest = 2 * rate + 1 + log_variance - deviation.square()
    mean = (rest.clamp(min=0) + raw_mean.clamp(min=0) + 1e-6).sqrt()
    return DiagonalGaussian(mean, log_variance)


def variance_limits(rate: float) -> tuple[float, float]:
    """The two variances at which a zero-mean Gaussian has KL ``rate`` from N(0, 1)."""

    def solve(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            if math.log(middle) - middle + 2 * rate + 1 > 0:
                inside = middle
            else:
                outside = middle
        return inside

    return solve(1.0, math.exp(-2 * rate - 2)), solve(1.0, 4 * rate + 4)
