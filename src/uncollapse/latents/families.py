"""Which exponential family a posterior belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import PosteriorConfig
from uncollapse.distributions import families
from uncollapse.distributions.exponential import ExponentialFamily

# each takes the posterior's configuration and the units of a group
KINDS: dict[str, Callable[[Any, int], ExponentialFamily]] = {
    "gaussian": lambda _config, _dim: families.Gaussian(),
    "known-variance-gaussian": lambda config, _dim: families.KnownVarianceGaussian(
        config.deviation
    ),
    "categorical": lambda config, _dim: families.Categorical(config.categories),
    "bernoulli": lambda _config, _dim: families.Bernoulli(),
    "poisson": lambda _config, _dim: families.Poisson(),
    "gamma": lambda _config, _dim: families.Gamma(),
    "exponential": lambda _config, _dim: families.Exponential(),
    "beta": lambda _config, _dim: families.Beta(),
    "dirichlet": lambda config, _dim: families.Dirichlet(config.categories),
    # its unit is a direction, of all dimensions together
    "von-mises-fisher": lambda _config, dim: families.VonMisesFisherFamily(dim),
}


def family_of(config: PosteriorConfig, dim: int) -> ExponentialFamily:
    """The family of a posterior over groups of ``dim`` units."""
    return KINDS[config.kind](config, dim)
