"""A posterior that can be drawn from and has no density (iVAE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import ImplicitPosteriorConfig
from uncollapse.distributions.implicit import Implicit
from uncollapse.latents.generators import generator, noise_network
from uncollapse.latents.posteriors.base import Posterior


class ImplicitPosterior(Posterior):
    """z = G(features, ε), ε ~ N(0, I), or, with a generator, G(μ(features) + σ(features) · ε).

    Without a hidden layer, as in the official code, z given x is Gaussian in fact, with one
    covariance for all sentences; nothing here makes use of that.

    References
    ----------
    Fang et al. 2019, "Implicit Deep Latent Variable Models for Text Generation", eq. 4; Gu et
    al. 2019, "DialogWAE: Multimodal Response Generation with Conditional Wasserstein
    Auto-Encoder", section 4.1 (with a generator).
    """

    has_density = False

    def __init__(self, config: ImplicitPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.noise_dim = config.noise_dim or dim
        self.noise = None  # what ε is like, where not N(0, I)
        if config.generator is not None:
            hidden = config.generator.hidden_dim
            self.noise = noise_network(feature_dim, hidden, 2 * self.noise_dim)
            self.network: nn.Module = generator(self.noise_dim, hidden, dim)
            return
        width = feature_dim + self.noise_dim
        if config.hidden_dim is None:
            self.network = nn.Linear(width, dim)
        else:
            hidden = config.hidden_dim
            self.network = nn.Sequential(
                nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, dim)
            )

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> Implicit:
        """What can be drawn from, for features ``(..., H)``."""
        if self.noise is not None:  # once for all draws
            features = self.noise(features)  # (..., 2E)
        return Implicit(features, self._sample, self.noise_dim)

    def _sample(self, features: Tensor, noise: Tensor) -> Tensor:
        # features may have been moved since, to another device or type than the network's
        own = next(self.network.parameters())
        if self.noise is None:
            inputs = torch.cat([features, noise], -1)  # (..., H + E)
        else:
            mean, log_variance = features.chunk(2, -1)  # (..., E) each
            inputs = mean + (0.5 * log_variance).exp() * noise
        return self.network(inputs.to(own)).to(features)  # (..., D)
