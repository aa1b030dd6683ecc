"""Random mixtures of every family, and posteriors and weights to hold against them."""

from __future__ import annotations

import torch
from family_cases import FAMILIES, SPHERES, naturals
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import Member
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.latents import Inference
from uncollapse.latents.priors import Mixture

M, U, K, B = 2, 3, 4, 5


def mixture_of(name: str, seed: int = 0, scale: float = 1.0) -> Mixture:
    """Of a family of `family_cases`, float64, with random components."""
    torch.manual_seed(seed)
    units = 1 if name in SPHERES else U
    prior = Mixture(FAMILIES[name], M, units, K).double()
    with torch.no_grad():
        prior.free.mul_(scale)
    return prior


def posterior_of(name: str, prior: Mixture, seed: int = 1, rows: int = B) -> Distribution:
    """Float64; of the Gaussian the class that encoders give."""
    torch.manual_seed(seed)
    shape = (rows, prior.groups * prior.units)
    if name == "gaussian":
        return DiagonalGaussian(*torch.randn(2, *shape, dtype=torch.float64).unbind())
    return Member(FAMILIES[name], naturals(name, *shape, seed=seed))


def log_weights_of(seed: int = 2, rows: int = B) -> Tensor:
    torch.manual_seed(seed)
    return (2 * torch.randn(rows, M, K, dtype=torch.float64)).log_softmax(-1)


def inference_of(posterior: Distribution, prior: Mixture, log_weights: Tensor) -> Inference:
    return Inference(posterior, torch.zeros(len(log_weights), 1), prior, log_weights=log_weights)
