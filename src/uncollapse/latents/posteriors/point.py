"""No posterior at all: z is a function of the sentence, as in an autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import PointPosteriorConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.latents.posteriors.base import Posterior


class PointPosterior(Posterior):
    """z = W·features. It has no density, so neither a KL nor a likelihood."""

    has_density = False

    def __init__(self, config: PointPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, dim, bias=config.bias)

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> DiagonalGaussian:
        """The limit of a Gaussian without variance."""
        mean = self.linear(features)  # (..., D)
        return DiagonalGaussian(mean, torch.full_like(mean, -torch.inf))
