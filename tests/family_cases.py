"""Every exponential family, random parameters of it, and what others compute of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch import distributions as td

from uncollapse.distributions import families
from uncollapse.distributions.exponential import ExponentialFamily

FAMILIES: dict[str, ExponentialFamily] = {
    "gaussian": families.Gaussian(),
    "known-variance": families.KnownVarianceGaussian(0.5),
    "categorical": families.Categorical(4),
    "bernoulli": families.Bernoulli(),
    "poisson": families.Poisson(),
    "gamma": families.Gamma(),
    "exponential": families.Exponential(),
    "beta": families.Beta(),
    "dirichlet": families.Dirichlet(3),
    "circle": families.VonMisesFisherFamily(2),
    "sphere": families.VonMisesFisherFamily(5),
}
NAMES = list(FAMILIES)
SPHERES = ("circle", "sphere")
every_family = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.1, 1.0, 5.0])
few = settings(max_examples=15)
CONTINUOUS = [name for name, family in FAMILIES.items() if not family.is_discrete]


def naturals(
    name: str, *shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random feasible natural parameters ``(*shape, P)``."""
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    free = torch.randn((*shape, family.parameters), generator=generator, dtype=torch.float64)
    return family.natural(scale * free).to(dtype)


def weights(*shape: int, seed: int = 0) -> Tensor:
    """Random weights that sum to 1 over the last axis, float64."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


def reference(name: str, natural: Tensor) -> Any:
    """The same distribution by PyTorch; of scalars ``(...)``, not ``(..., 1)``."""
    first = natural[..., 0]
    match name:
        case "gaussian":
            variance = -0.5 / natural[..., 1]
            return td.Normal(first * variance, variance.sqrt())
        case "known-variance":
            return td.Normal(0.5 * first, 0.5)
        case "categorical":
            return td.OneHotCategorical(logits=torch.nn.functional.pad(natural, (0, 1)))
        case "bernoulli":
            return td.Bernoulli(logits=first)
        case "poisson":
            return td.Poisson(first.exp())
        case "gamma":
            return td.Gamma(first, -natural[..., 1])
        case "exponential":
            return td.Exponential(-first)
        case "beta":
            return td.Beta(first, natural[..., 1])
        case "dirichlet":
            return td.Dirichlet(natural)
    raise AssertionError(f"PyTorch has no {name}")


def entropy(name: str, natural: Tensor) -> Tensor:
    """Entropies ``(n,)`` of natural parameters ``(n, P)``, by PyTorch or SciPy."""
    if name == "poisson":  # SciPy's own sum ends too early where rates are large
        rate = natural.exp().numpy()  # (n, 1)
        log_mass = stats.poisson.logpmf(np.arange(rate.max() + 40 * rate.max() ** 0.5 + 40), rate)
        return torch.from_numpy(-(np.exp(log_mass) * log_mass).sum(-1))
    if name in SPHERES:
        return torch.from_numpy(np.array([sphere(row).entropy() for row in natural]))
    return reference(name, natural).entropy()


def log_prob(name: str, value: Tensor, natural: Tensor) -> Tensor:
    """Log-densities of values ``(n, E)``, by PyTorch or SciPy."""
    if name in SPHERES:
        rows = zip(value, natural, strict=True)
        return torch.from_numpy(
            np.array([sphere(row).logpdf(point.numpy()) for point, row in rows])
        )
    return reference(name, natural).log_prob(value if value.shape[-1] > 1 else value[..., 0])


def sphere(natural: Tensor) -> Any:
    """SciPy's von Mises–Fisher distribution of one vector of natural parameters."""
    kappa = natural.norm()
    return stats.vonmises_fisher((natural / kappa).numpy(), float(kappa))


def close(found: Tensor, expected: Tensor, relative: float = 1e-9, absolute: float = 1e-9) -> bool:
    """Whether all numbers agree, by either measure."""
    return torch.allclose(found, expected.to(found.dtype), rtol=relative, atol=absolute)
