"""Families of shares: beta, Dirichlet."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.distributions.families.free import positive
from uncollapse.distributions.families.positive import LEAST_SHAPE, TINY, log_gamma_variate

# higher than a gamma's: what is nearer to 1 than a rounding error has lost its density
LEAST_BETA = 0.1
BELOW_ONE = 1 - np.finfo(np.float64).epsneg


class Beta(ExponentialFamily):
    """η = (α, β), t(z) = (ln z, ln(1 − z)), h(z) = 1/(z (1 − z)), A(η) = ln B(α, β)."""

    parameters = 2

    def log_partition(self, natural: Tensor) -> Tensor:
        """ln Γ(α) + ln Γ(β) − ln Γ(α + β), ``(...)``."""
        return natural.lgamma().sum(-1) - natural.sum(-1).lgamma()

    def expectation(self, natural: Tensor) -> Tensor:
        """(ψ(α), ψ(β)) − ψ(α + β)."""
        return natural.digamma() - natural.sum(-1, keepdim=True).digamma()

    def statistics(self, value: Tensor) -> Tensor:
        """(ln z, ln(1 − z))."""
        return torch.cat([value.log(), torch.log1p(-value)], -1)

    def log_base(self, value: Tensor) -> Tensor:
        """−ln z − ln(1 − z)."""
        return -self.statistics(value).sum(-1)

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−E ln z − E ln(1 − z)."""
        return -self.expectation(natural).sum(-1)

    def mean(self, natural: Tensor) -> Tensor:
        """α/(α + β)."""
        return natural[..., :1] / natural.sum(-1, keepdim=True)

    def variance(self, natural: Tensor) -> Tensor:
        """αβ/((α + β)² (α + β + 1))."""
        return _variances(natural)[..., :1]

    def natural(self, free: Tensor) -> Tensor:
        """Both by softplus, with a floor."""
        return positive(free, LEAST_BETA)

    def feasible(self, natural: Tensor) -> Tensor:
        """Both positive and finite."""
        return (natural.isfinite() & (natural > 0)).all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)`` with gradients, neither 0 nor 1; Figurnov et al. 2018."""
        beta = torch.distributions.Beta(*natural.double().unbind(-1), validate_args=False)
        return self.nearest(beta.rsample().to(natural.dtype)).unsqueeze(-1)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``, neither 0 nor 1."""
        logarithm = log_gamma_variate(natural, random)  # (..., 2)
        share = np.exp(logarithm - np.logaddexp.reduce(logarithm, -1, keepdims=True))
        return share[..., :1].clip(TINY, BELOW_ONE)

    def nearest(self, value: Tensor) -> Tensor:
        """Between the least positive number and the greatest below 1."""
        limits = torch.finfo(value.dtype)
        return value.clamp(limits.tiny, 1 - limits.eps / 2)


class Dirichlet(ExponentialFamily):
    """η = α, t(z) = ln z, h(z) = Π 1/z, A(η) = Σ ln Γ(α) − ln Γ(Σ α): K shares, which sum to 1.

    Densities are those of the first K − 1 shares.

    Parameters
    ----------
    categories : int
        K ≥ 2.
    """

    def __init__(self, categories: int) -> None:
        self.parameters = categories
        self.width = categories

    def log_partition(self, natural: Tensor) -> Tensor:
        """Σ ln Γ(α) − ln Γ(Σ α), ``(...)``."""
        return natural.lgamma().sum(-1) - natural.sum(-1).lgamma()

    def expectation(self, natural: Tensor) -> Tensor:
        """ψ(α) − ψ(Σ α)."""
        return natural.digamma() - natural.sum(-1, keepdim=True).digamma()

    def statistics(self, value: Tensor) -> Tensor:
        """ln z."""
        return value.log()

    def log_base(self, value: Tensor) -> Tensor:
        """−Σ ln z."""
        return -value.log().sum(-1)

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−Σ E ln z."""
        return -self.expectation(natural).sum(-1)

    def mean(self, natural: Tensor) -> Tensor:
        """α/Σα."""
        return natural / natural.sum(-1, keepdim=True)

    def variance(self, natural: Tensor) -> Tensor:
        """m (1 − m)/(Σα + 1) of the mean m."""
        return _variances(natural)

    def natural(self, free: Tensor) -> Tensor:
        """All by softplus, with a floor."""
        return positive(free, LEAST_SHAPE)

    def feasible(self, natural: Tensor) -> Tensor:
        """All positive and finite."""
        return (natural.isfinite() & (natural > 0)).all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., K)`` with gradients, no share 0; Figurnov et al. 2018."""
        draw = torch.distributions.Dirichlet(natural.double(), validate_args=False).rsample()
        return draw.to(natural.dtype).clamp(min=torch.finfo(natural.dtype).tiny)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., K)``, no share 0."""
        logarithm = log_gamma_variate(natural, random)
        share = np.exp(logarithm - np.logaddexp.reduce(logarithm, -1, keepdims=True))
        return np.maximum(share, TINY)

    def nearest(self, value: Tensor) -> Tensor:
        """The nearest point of the simplex, with no share 0.

        Duchi et al. 2008, "Efficient Projections onto the l1-Ball for Learning in High
        Dimensions", figure 1.
        """
        ordered = value.sort(-1, descending=True).values
        counts = torch.arange(1, self.width + 1, device=value.device)
        excess = (ordered.cumsum(-1) - 1) / counts  # to take from all, if so many stay positive
        kept = (ordered > excess).sum(-1, keepdim=True)
        share = (value - excess.gather(-1, kept - 1)).clamp(min=0)
        return (share / share.sum(-1, keepdim=True)).clamp(min=torch.finfo(value.dtype).tiny)


def _variances(concentrations: Tensor) -> Tensor:
    total = concentrations.sum(-1, keepdim=True)
    mean = concentrations / total
    rest = (total - concentrations) / total  # 1 − mean, with all its digits where the mean is 1
    return mean * rest / (total + 1)
