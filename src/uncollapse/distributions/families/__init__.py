"""Exponential families, each given by natural parameters, A(η), ∇A(η) and sampling."""

from __future__ import annotations

from uncollapse.distributions.families.discrete import Bernoulli, Categorical, Poisson
from uncollapse.distributions.families.gaussian import Gaussian, KnownVarianceGaussian
from uncollapse.distributions.families.positive import Exponential, Gamma
from uncollapse.distributions.families.simplex import Beta, Dirichlet
from uncollapse.distributions.families.sphere import VonMisesFisherFamily

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Dirichlet",
    "Exponential",
    "Gamma",
    "Gaussian",
    "KnownVarianceGaussian",
    "Poisson",
    "VonMisesFisherFamily",
]
