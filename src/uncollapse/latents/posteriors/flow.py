"""A Gaussian posterior pushed through a normalising flow (RNF)."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import FlowPosteriorConfig
from uncollapse.distributions.transformed import Transformed
from uncollapse.latents.flows import PlanarFlow
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.gaussian import GaussianPosterior


class FlowPosterior(Posterior):
    """q(z|x): z = f(y), y ~ N(μ(x), diag σ²(x)), f planar layers that do not depend on x.

    Parameters
    ----------
    config : FlowPosteriorConfig
        The Gaussian, any of its kinds, and the number of layers.
    feature_dim, dim : int
        H and D.

    References
    ----------
    Wang & Wang 2019, "Riemannian Normalizing Flow on Variational Wasserstein Autoencoder for
    Text Modeling". As in their code, layers are shared by all sentences.
    """

    def __init__(self, config: FlowPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.base = GaussianPosterior(config.base, feature_dim, dim)
        self.flow = PlanarFlow(dim, config.length)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Transformed:
        """Posterior of features ``(..., H)``; ``mask`` ``(...)`` tells which are real."""
        return Transformed(self.base(features, mask), self.flow)
