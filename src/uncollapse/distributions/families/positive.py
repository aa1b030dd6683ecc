"""Families of positive numbers: gamma, exponential."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.distributions.families.free import positive

# a lower shape puts too many draws below the least float64, where their density is lost
LEAST_SHAPE = 0.02
LEAST_RATE = 1e-3
TINY = np.finfo(np.float64).tiny


class Gamma(ExponentialFamily):
    """η = (α, −β), t(z) = (ln z, z), h(z) = 1/z, A(η) = ln Γ(α) − α ln β: shape α, rate β."""

    parameters = 2

    def log_partition(self, natural: Tensor) -> Tensor:
        """ln Γ(α) − α ln β, ``(...)``."""
        shape, rate = _shape_and_rate(natural)
        return shape.lgamma() - shape * rate.log()

    def expectation(self, natural: Tensor) -> Tensor:
        """(ψ(α) − ln β, α/β)."""
        shape, rate = _shape_and_rate(natural)
        return torch.stack([shape.digamma() - rate.log(), shape / rate], -1)

    def statistics(self, value: Tensor) -> Tensor:
        """(ln z, z)."""
        return torch.cat([value.log(), value], -1)

    def log_base(self, value: Tensor) -> Tensor:
        """−ln z."""
        return -value.squeeze(-1).log()

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−E ln z."""
        return -self.expectation(natural)[..., 0]

    def mean(self, natural: Tensor) -> Tensor:
        """α/β."""
        shape, rate = _shape_and_rate(natural)
        return (shape / rate).unsqueeze(-1)

    def variance(self, natural: Tensor) -> Tensor:
        """α/β²."""
        shape, rate = _shape_and_rate(natural)
        return (shape / rate / rate).unsqueeze(-1)

    def natural(self, free: Tensor) -> Tensor:
        """Shape and rate by softplus, with a floor."""
        shape, rate = free.unbind(-1)
        return torch.stack([positive(shape, LEAST_SHAPE), -positive(rate, LEAST_RATE)], -1)

    def feasible(self, natural: Tensor) -> Tensor:
        """α > 0 and β > 0, both finite."""
        shape, rate = _shape_and_rate(natural)
        return natural.isfinite().all(-1) & (shape > 0) & (rate > 0)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)`` with gradients, never 0.

        Figurnov et al. 2018, "Implicit Reparameterization Gradients".
        """
        shape, rate = _shape_and_rate(natural.double())
        draw = torch.distributions.Gamma(shape, rate, validate_args=False).rsample()
        return self.nearest(draw.to(natural.dtype)).unsqueeze(-1)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``, never 0."""
        logarithm = log_gamma_variate(natural[..., :1], random) - np.log(-natural[..., 1:])
        return np.maximum(np.exp(logarithm), TINY)

    def nearest(self, value: Tensor) -> Tensor:
        """Not below the least positive number."""
        return value.clamp(min=torch.finfo(value.dtype).tiny)


class Exponential(ExponentialFamily):
    """η = −β, t(z) = z, A(η) = −ln β: rate β."""

    def log_partition(self, natural: Tensor) -> Tensor:
        """−ln β, ``(...)``."""
        return -(-natural).log().squeeze(-1)

    def expectation(self, natural: Tensor) -> Tensor:
        """1/β."""
        return -1 / natural

    def statistics(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def mean(self, natural: Tensor) -> Tensor:
        """1/β."""
        return -1 / natural

    def variance(self, natural: Tensor) -> Tensor:
        """1/β²."""
        return (1 / natural).square()

    def natural(self, free: Tensor) -> Tensor:
        """The rate by softplus, with a floor."""
        return -positive(free, LEAST_RATE)

    def feasible(self, natural: Tensor) -> Tensor:
        """β > 0, finite."""
        return (natural.isfinite() & (natural < 0)).all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)`` with gradients."""
        return -torch.empty_like(natural).exponential_() / natural

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``."""
        return -random.standard_exponential(natural.shape) / natural

    def nearest(self, value: Tensor) -> Tensor:
        """Not below 0."""
        return value.clamp(min=0)


def log_gamma_variate(shape: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Logarithms of gamma variates of rate 1; they are finite where the variates would be 0.

    One of shape α is one of shape α + 1 times U^(1/α), with U uniform.
    """
    larger = np.log(random.standard_gamma(shape + 1))
    return larger - random.standard_exponential(shape.shape) / shape  # −ln U is exponential


def _shape_and_rate(natural: Tensor) -> tuple[Tensor, Tensor]:
    shape, negative_rate = natural.unbind(-1)
    return shape, -negative_rate
