"""The Gaussian of one number, with both parameters learned or with a known variance."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.distributions.families.free import bounded
from uncollapse.distributions.gaussian import LOG_2PI, DiagonalGaussian

# ln σ² up to the first stays as it is and never passes the second: float32 holds the third
# power of the second's exponential, which a KL's gradient by η comes to
LARGE_LOG_VARIANCE, LARGEST_LOG_VARIANCE = 20.0, 25.0


class Gaussian(ExponentialFamily):
    """η = (μ/σ², −1/(2σ²)), t(z) = (z, z²), A(η) = −η₁²/(4η₂) − ½ ln(−2η₂).

    Where σ is small, μ²/σ² is so large that nothing would be left of differences of A, so
    that densities and divergences are computed from μ and σ².
    """

    parameters = 2

    def log_partition(self, natural: Tensor) -> Tensor:
        """A(η), ``(...)``."""
        first, second = natural.unbind(-1)
        return -first * (first / second) / 4 - 0.5 * (-2 * second).log()

    def expectation(self, natural: Tensor) -> Tensor:
        """(μ, μ² + σ²)."""
        mean, variance = self._moments(natural)
        return torch.stack([mean, mean.square() + variance], -1)

    def statistics(self, value: Tensor) -> Tensor:
        """(z, z²)."""
        return torch.cat([value, value.square()], -1)

    def log_base(self, value: Tensor) -> Tensor:
        """−½ ln 2π."""
        return value.new_full(value.shape[:-1], -0.5 * LOG_2PI)

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−½ ln 2π."""
        return natural.new_full(natural.shape[:-1], -0.5 * LOG_2PI)

    def mean(self, natural: Tensor) -> Tensor:
        """μ."""
        return self._moments(natural)[0].unsqueeze(-1)

    def variance(self, natural: Tensor) -> Tensor:
        """σ²."""
        return self._moments(natural)[1].unsqueeze(-1)

    def natural(self, free: Tensor) -> Tensor:
        """From μ and ln σ²."""
        mean, log_variance = free.unbind(-1)
        return _natural(mean, bounded(log_variance, LARGE_LOG_VARIANCE, LARGEST_LOG_VARIANCE))

    def feasible(self, natural: Tensor) -> Tensor:
        """η₂ < 0, both finite."""
        return natural.isfinite().all(-1) & (natural[..., 1] < 0)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)`` with gradients."""
        mean, variance = self._moments(natural)
        return (mean + variance.sqrt() * torch.randn_like(mean)).unsqueeze(-1)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``."""
        variance = -0.5 / natural[..., 1:]
        noise = random.standard_normal(variance.shape)
        return natural[..., :1] * variance + np.sqrt(variance) * noise

    def log_prob(self, value: Tensor, natural: Tensor) -> Tensor:
        """−½ ((z − μ)²/σ² + ln 2πσ²), ``(...)``."""
        mean, variance = self._moments(natural.double())
        distance = (value.double().squeeze(-1) - mean).square() / variance
        log_prob = -0.5 * (distance + variance.log() + LOG_2PI)
        return log_prob.to(torch.promote_types(value.dtype, natural.dtype))

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """½ ((μ_q − μ_p)²/σ_p² + σ_q²/σ_p² − 1 − ln σ_q²/σ_p²), ``(...)``."""
        mean_q, variance_q = self._moments(q.double())
        mean_p, variance_p = self._moments(p.double())
        ratio = variance_q / variance_p
        kl = 0.5 * ((mean_q - mean_p).square() / variance_p + ratio - 1 - ratio.log())
        return kl.clamp(min=0).to(q.dtype)

    def entropy(self, natural: Tensor) -> Tensor:
        """½ ln 2πeσ², ``(...)``."""
        variance = self._moments(natural)[1]
        return 0.5 * (variance.log() + 1 + LOG_2PI)

    def of(self, posterior: Distribution) -> Tensor:
        """Natural parameters ``(..., D, 2)`` float64 of a diagonal Gaussian."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().of(posterior)
        # float64: a small variance makes them too large for differences in float32
        return _natural(posterior.mean.double(), posterior.log_variance.double())

    @staticmethod
    def _moments(natural: Tensor) -> tuple[Tensor, Tensor]:
        first, second = natural.unbind(-1)
        variance = -0.5 / second
        return first * variance, variance


def _natural(mean: Tensor, log_variance: Tensor) -> Tensor:
    precision = (-log_variance).exp()
    return torch.stack([mean * precision, -0.5 * precision], -1)


class KnownVarianceGaussian(ExponentialFamily):
    """η = μ/σ with σ known, t(z) = z/σ, A(η) = η²/2.

    Parameters
    ----------
    deviation : float
        σ.
    """

    def __init__(self, deviation: float = 1.0) -> None:
        self.deviation = deviation

    def log_partition(self, natural: Tensor) -> Tensor:
        """η²/2, ``(...)``."""
        return 0.5 * natural.square().sum(-1)

    def expectation(self, natural: Tensor) -> Tensor:
        """μ/σ, which is η."""
        return natural

    def statistics(self, value: Tensor) -> Tensor:
        """z/σ."""
        return value / self.deviation

    def log_base(self, value: Tensor) -> Tensor:
        """−z²/(2σ²) − ln σ − ½ ln 2π."""
        constant = math.log(self.deviation) + 0.5 * LOG_2PI
        return -0.5 * (value / self.deviation).square().sum(-1) - constant

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−(η² + 1)/2 − ln σ − ½ ln 2π."""
        constant = math.log(self.deviation) + 0.5 * LOG_2PI
        return -0.5 * (natural.square().sum(-1) + 1) - constant

    def mean(self, natural: Tensor) -> Tensor:
        """μ = ησ."""
        return natural * self.deviation

    def variance(self, natural: Tensor) -> Tensor:
        """σ²."""
        return torch.full_like(natural, self.deviation**2)

    def natural(self, free: Tensor) -> Tensor:
        """From μ."""
        return free / self.deviation

    def feasible(self, natural: Tensor) -> Tensor:
        """Any finite number."""
        return natural.isfinite().all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)`` with gradients."""
        return (natural + torch.randn_like(natural)) * self.deviation

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``."""
        return (natural + random.standard_normal(natural.shape)) * self.deviation

    def log_prob(self, value: Tensor, natural: Tensor) -> Tensor:
        """−(z/σ − η)²/2 − ln σ − ½ ln 2π, ``(...)``: no difference of large numbers."""
        distance = (value.double() / self.deviation - natural).square().sum(-1)
        log_prob = -0.5 * (distance + LOG_2PI) - math.log(self.deviation)
        return log_prob.to(torch.promote_types(value.dtype, natural.dtype))

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """(η_q − η_p)²/2, ``(...)``."""
        return 0.5 * (q.double() - p.double()).square().sum(-1).to(q.dtype)

    def entropy(self, natural: Tensor) -> Tensor:
        """½ ln 2πeσ², ``(...)``."""
        entropy = 0.5 * (1 + LOG_2PI) + math.log(self.deviation)
        return natural.new_full(natural.shape[:-1], entropy)
