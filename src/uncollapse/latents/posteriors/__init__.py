"""Posteriors: from features to a distribution over z."""

from __future__ import annotations

from uncollapse.config import PosteriorConfig
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.gaussian import GaussianPosterior
from uncollapse.latents.posteriors.point import PointPosterior

KINDS = {"gaussian": GaussianPosterior, "point": PointPosterior}

__all__ = ["KINDS", "GaussianPosterior", "PointPosterior", "Posterior", "build_posterior"]


def build_posterior(config: PosteriorConfig, feature_dim: int, dim: int) -> Posterior:
    """Build the posterior that a recipe names."""
    return KINDS[config.kind](config, feature_dim, dim)
