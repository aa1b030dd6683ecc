"""A posterior that can be drawn from and has no density (iVAE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import ImplicitPosteriorConfig
from uncollapse.distributions.implicit import Implicit
from uncollapse.latents.posteriors.base import Posterior


class ImplicitPosterior(Posterior):
    """z = G(features, ε), ε ~ N(0, I).

    Without a hidden layer, as in the official code, z given x is Gaussian in fact, with one
    covariance for all sentences; nothing here makes use of that.

    References
    ----------
    Fang et al. 2019, "Implicit Deep Latent Variable Models for Text Generation", eq. 4.
    """

    has_density = False

    def __init__(self, config: ImplicitPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.noise_dim = config.noise_dim or dim
        width = feature_dim + self.noise_dim
        if config.hidden_dim is None:
            self.network: nn.Module = nn.Linear(width, dim)
        else:
            hidden = config.hidden_dim
            self.network = nn.Sequential(
                nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, dim)
            )

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> Implicit:
        """What can be drawn from, for features ``(..., H)``."""
        return Implicit(features, self._sample, self.noise_dim)

    def _sample(self, features: Tensor, noise: Tensor) -> Tensor:
        # features may have been moved since, to another device or type than the network's
        own = next(self.network.parameters())
        inputs = torch.cat([features, noise], -1).to(own)  # (..., H + E)
        return self.network(inputs).to(features)  # (..., D)
