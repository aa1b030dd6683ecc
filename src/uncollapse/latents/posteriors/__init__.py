"""Posteriors: from features to a distribution over z."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import PosteriorConfig
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.family import FamilyPosterior
from uncollapse.latents.posteriors.flow import FlowPosterior
from uncollapse.latents.posteriors.gaussian import GaussianPosterior
from uncollapse.latents.posteriors.implicit import ImplicitPosterior
from uncollapse.latents.posteriors.point import PointPosterior
from uncollapse.latents.posteriors.refined import RefinedPosterior
from uncollapse.latents.posteriors.von_mises_fisher import VonMisesFisherPosterior

KINDS: dict[str, Callable[[Any, int, int], Posterior]] = {
    "gaussian": GaussianPosterior,
    "point": PointPosterior,
    "von-mises-fisher": VonMisesFisherPosterior,
    "flow": FlowPosterior,
    "implicit": ImplicitPosterior,
    "refined": RefinedPosterior,
    "categorical": FamilyPosterior,
    "bernoulli": FamilyPosterior,
    "dirichlet": FamilyPosterior,
    "known-variance-gaussian": FamilyPosterior,
    "gamma": FamilyPosterior,
    "beta": FamilyPosterior,
    "exponential": FamilyPosterior,
    "poisson": FamilyPosterior,
}

__all__ = [
    "KINDS",
    "FamilyPosterior",
    "FlowPosterior",
    "GaussianPosterior",
    "ImplicitPosterior",
    "PointPosterior",
    "Posterior",
    "RefinedPosterior",
    "VonMisesFisherPosterior",
    "build_posterior",
]


def build_posterior(config: PosteriorConfig, feature_dim: int, dim: int) -> Posterior:
    """Build the posterior that a recipe names."""
    return KINDS[config.kind](config, feature_dim, dim)
