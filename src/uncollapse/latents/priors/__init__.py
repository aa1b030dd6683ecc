"""Priors over z."""

from __future__ import annotations

from collections.abc import Callable

from uncollapse.config import LatentConfig, MixtureConfig
from uncollapse.distributions.exponential import FiniteFamily
from uncollapse.latents.families import family_of
from uncollapse.latents.priors.base import Prior
from uncollapse.latents.priors.mixture import Mixture, MixtureKL
from uncollapse.latents.priors.standard_normal import StandardNormal
from uncollapse.latents.priors.uniform_categorical import UniformCategorical
from uncollapse.latents.priors.uniform_sphere import UniformSphere


def _uniform_categorical(config: LatentConfig) -> Prior:
    family = family_of(config.posterior, config.dim)
    assert isinstance(family, FiniteFamily)
    return UniformCategorical(family, config.groups * config.dim)


def _mixture(config: LatentConfig) -> Prior:
    assert isinstance(config.prior, MixtureConfig)
    family = family_of(config.posterior, config.dim)
    # a unit may be as wide as the group: a direction
    units = 1 if config.posterior.kind == "von-mises-fisher" else config.dim
    return Mixture(family, config.groups, units, config.prior.components)


KINDS: dict[str, Callable[[LatentConfig], Prior]] = {
    "standard-normal": lambda config: StandardNormal(config.groups * config.dim),
    "uniform-sphere": lambda config: UniformSphere(config.groups * config.dim),
    "uniform-categorical": _uniform_categorical,
    "mixture": _mixture,
}

__all__ = [
    "KINDS",
    "Mixture",
    "MixtureKL",
    "Prior",
    "StandardNormal",
    "UniformCategorical",
    "UniformSphere",
    "build_prior",
]


def build_prior(config: LatentConfig) -> Prior:
    """Build the prior that a latent names."""
    return KINDS[config.prior.kind](config)
