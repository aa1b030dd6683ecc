"""Priors over z."""

from __future__ import annotations

from collections.abc import Callable

from uncollapse.config import (
    ConditionalGaussianConfig,
    ConditionalImplicitConfig,
    LatentConfig,
    MixtureConfig,
    PolicyConfig,
    UniformCategoricalConfig,
)
from uncollapse.distributions.exponential import FiniteFamily
from uncollapse.latents.families import family_of
from uncollapse.latents.priors.base import Prior
from uncollapse.latents.priors.conditional_gaussian import ConditionalGaussian
from uncollapse.latents.priors.conditional_implicit import ConditionalImplicit
from uncollapse.latents.priors.mixture import Mixture, MixtureKL
from uncollapse.latents.priors.policy import Policy
from uncollapse.latents.priors.standard_normal import StandardNormal
from uncollapse.latents.priors.uniform_categorical import UniformCategorical
from uncollapse.latents.priors.uniform_sphere import UniformSphere


def _conditional_gaussian(config: LatentConfig, condition_dim: int) -> Prior:
    assert isinstance(config.prior, ConditionalGaussianConfig)
    return ConditionalGaussian(config.prior, condition_dim, config.groups * config.dim)


def _conditional_implicit(config: LatentConfig, condition_dim: int) -> Prior:
    assert isinstance(config.prior, ConditionalImplicitConfig)
    return ConditionalImplicit(config.prior, condition_dim, config.groups * config.dim)


def _uniform_categorical(config: LatentConfig, condition_dim: int) -> Prior:
    assert isinstance(config.prior, UniformCategoricalConfig)
    family = family_of(config.posterior, config.dim)
    assert isinstance(family, FiniteFamily)
    units = config.groups * config.dim
    size = units, len(family.values())
    return UniformCategorical(family, units, _policy(config.prior.policy, condition_dim, size))


def _policy(
    config: PolicyConfig | None, condition_dim: int, size: tuple[int, int]
) -> Policy | None:
    return None if config is None else Policy(config, condition_dim, size)


def _mixture(config: LatentConfig, condition_dim: int) -> Prior:
    assert isinstance(config.prior, MixtureConfig)
    family = family_of(config.posterior, config.dim)
    # a unit may be as wide as the group: a direction
    units = 1 if config.posterior.kind == "von-mises-fisher" else config.dim
    size = config.groups, config.prior.components
    policy = _policy(config.prior.policy, condition_dim, size)
    return Mixture(family, config.groups, units, config.prior.components, policy)


KINDS: dict[str, Callable[[LatentConfig, int], Prior]] = {
    "standard-normal": lambda config, _: StandardNormal(config.groups * config.dim),
    "uniform-sphere": lambda config, _: UniformSphere(config.groups * config.dim),
    "conditional-gaussian": _conditional_gaussian,
    "conditional-implicit": _conditional_implicit,
    "uniform-categorical": _uniform_categorical,
    "mixture": _mixture,
}

__all__ = [
    "KINDS",
    "ConditionalGaussian",
    "ConditionalImplicit",
    "Mixture",
    "MixtureKL",
    "Policy",
    "Prior",
    "StandardNormal",
    "UniformCategorical",
    "UniformSphere",
    "build_prior",
]


def build_prior(config: LatentConfig, condition_dim: int) -> Prior:
    """Build the prior that a latent names; ``condition_dim`` is that of its context, C or 0."""
    return KINDS[config.prior.kind](config, condition_dim)
