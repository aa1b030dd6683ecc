"""The von Mises–Fisher posterior: a direction per sentence, one concentration for all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import VonMisesFisherConfig
from uncollapse.distributions.von_mises_fisher import VonMisesFisher, check_sphere
from uncollapse.latents.posteriors.base import Posterior


class VonMisesFisherPosterior(Posterior):
    """q(z|x) = vMF(W·features / ‖W·features‖, κ) with a fixed κ.

    Its KL from the uniform prior is a constant, so that it cannot vanish.

    References
    ----------
    Xu and Durrett 2018, "Spherical Latent Spaces for Stable Variational Autoencoders".

    Parameters
    ----------
    config : VonMisesFisherConfig
        ``kappa`` is κ.
    feature_dim, dim : int
        H and D.

    Raises
    ------
    UserError
        For fewer than two dimensions.
    """

    def __init__(self, config: VonMisesFisherConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        check_sphere(dim)
        self.linear = nn.Linear(feature_dim, dim, bias=config.bias)
        self.kappa = config.kappa

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> VonMisesFisher:
        """Posterior of features ``(..., H)``."""
        return VonMisesFisher(unit(self.linear(features)), self.kappa)


def unit(vectors: Tensor) -> Tensor:
    """Vectors ``(..., D)`` at length 1; the zero vector becomes the diagonal, without gradient."""
    zero = vectors.detach().norm(dim=-1, keepdim=True) < 1e-12
    # replaced before the division: a gradient through 0/0 would be NaN even where it is not used
    vectors = torch.where(zero, torch.ones_like(vectors), vectors)
    return vectors / vectors.norm(dim=-1, keepdim=True)
