"""No posterior at all: z is a function of the sentence, as in an autoencoder."""

from __future__ import annotations

from torch import Tensor, nn

from uncollapse.config import PointPosteriorConfig
from uncollapse.distributions.point import Point
from uncollapse.latents.posteriors.base import Posterior


class PointPosterior(Posterior):
    """z = W·features. It has no density, so neither a KL nor a likelihood."""

    has_density = False
    is_random = False

    def __init__(self, config: PointPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, dim, bias=config.bias)

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> Point:
        """The point of every sentence."""
        return Point(self.linear(features))  # (..., D)
