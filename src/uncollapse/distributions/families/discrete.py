"""Families of codes and counts: categorical, Bernoulli, Poisson."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uncollapse.distributions.exponential import ExponentialFamily, FiniteFamily
from uncollapse.distributions.families.free import bounded

# where the sum over counts ends and the series in 1/λ begins, exact to 1e-12 both
LARGE_RATE = 50
COUNTS = 192
# H = ½ ln 2πeλ − 1/(12λ) − …: Evans, Boersma, Blachman and Jabri 1988, "The Entropy of a
# Poisson Distribution", SIAM Review 30
ENTROPY_SERIES = (1 / 12, 1 / 24, 19 / 360, 9 / 80, 863 / 2520, 1375 / 1008, 33953 / 5040)
# η up to the first stays as it is and never passes the second: a count of a million
LARGE_LOG_RATE, LARGEST_LOG_RATE = 10.0, 14.0


class Categorical(FiniteFamily):
    """One of K values, written one-hot; η are the logits against the last value's, K − 1 of them.

    A(η) = ln(1 + Σ e^η).

    Parameters
    ----------
    categories : int
        K ≥ 2.
    """

    def __init__(self, categories: int) -> None:
        self.parameters = categories - 1
        self.width = categories

    def log_partition(self, natural: Tensor) -> Tensor:
        """ln(1 + Σ e^η), ``(...)``."""
        return self.logits(natural).logsumexp(-1)

    def expectation(self, natural: Tensor) -> Tensor:
        """Probabilities of all values but the last."""
        return self.mean(natural)[..., :-1]

    def statistics(self, value: Tensor) -> Tensor:
        """The one-hot vector without its last number."""
        return value[..., :-1]

    def mean(self, natural: Tensor) -> Tensor:
        """Probabilities, ``(..., K)``."""
        return self.logits(natural).softmax(-1)

    def variance(self, natural: Tensor) -> Tensor:
        """p (1 − p), ``(..., K)``."""
        mean = self.mean(natural)
        return mean * (1 - mean)

    def natural(self, free: Tensor) -> Tensor:
        """Any numbers are logits."""
        return free

    def feasible(self, natural: Tensor) -> Tensor:
        """Any finite numbers."""
        return natural.isfinite().all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw one-hot ``(..., K)``, without gradients."""
        return F.one_hot(self._perturbed(natural).argmax(-1), self.width).to(natural.dtype)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw one-hot ``(..., K)``."""
        logits = np.concatenate([natural, np.zeros_like(natural[..., :1])], -1)
        code = (logits + random.gumbel(size=logits.shape)).argmax(-1)
        return np.eye(self.width)[code]

    def nearest(self, value: Tensor) -> Tensor:
        """The one-hot vector of the largest number."""
        return F.one_hot(value.argmax(-1), self.width).to(value.dtype)

    def values(self) -> Tensor:
        """The K one-hot vectors, ``(K, K)``."""
        return torch.eye(self.width)

    def log_probs(self, natural: Tensor) -> Tensor:
        """The normalised logits, ``(..., K)``."""
        return self.logits(natural).log_softmax(-1)

    def relaxed(self, natural: Tensor, temperature: float) -> Tensor:
        """Draw ``(..., K)``: shares, which sum to 1."""
        return (self._perturbed(natural) / temperature).softmax(-1)

    def _perturbed(self, natural: Tensor) -> Tensor:
        """Logits and Gumbel noise, whose largest is a draw."""
        logits = self.logits(natural)
        return logits - torch.empty_like(logits).exponential_().log()

    @staticmethod
    def logits(natural: Tensor) -> Tensor:
        """Logits of all values, ``(..., K)``, the last 0."""
        return F.pad(natural, (0, 1))


class Bernoulli(FiniteFamily):
    """0 or 1; η is the logit of 1, A(η) = ln(1 + e^η)."""

    def log_partition(self, natural: Tensor) -> Tensor:
        """ln(1 + e^η), ``(...)``."""
        return F.softplus(natural, threshold=40).squeeze(-1)

    def expectation(self, natural: Tensor) -> Tensor:
        """The probability of 1."""
        return natural.sigmoid()

    def statistics(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def mean(self, natural: Tensor) -> Tensor:
        """The probability of 1."""
        return natural.sigmoid()

    def variance(self, natural: Tensor) -> Tensor:
        """p (1 − p)."""
        return natural.sigmoid() * (-natural).sigmoid()

    def natural(self, free: Tensor) -> Tensor:
        """Any number is a logit."""
        return free

    def feasible(self, natural: Tensor) -> Tensor:
        """Any finite number."""
        return natural.isfinite().all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)``, without gradients."""
        return torch.bernoulli(natural.sigmoid())

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``."""
        return (natural + random.logistic(size=natural.shape) > 0).astype(np.float64)

    def nearest(self, value: Tensor) -> Tensor:
        """0 or 1, whichever is nearer."""
        return (value > 0.5).to(value.dtype)

    def values(self) -> Tensor:
        """0 and 1, ``(2, 1)``."""
        return torch.tensor([[0.0], [1.0]])

    def log_probs(self, natural: Tensor) -> Tensor:
        """Of 0 and of 1, ``(..., 2)``."""
        return torch.cat([F.logsigmoid(-natural), F.logsigmoid(natural)], -1)

    def relaxed(self, natural: Tensor, temperature: float) -> Tensor:
        """Draw ``(..., 1)`` between 0 and 1."""
        noise = torch.rand_like(natural).clamp(min=torch.finfo(natural.dtype).tiny)
        return ((natural + noise.logit()) / temperature).sigmoid()


class Poisson(ExponentialFamily):
    """A count: η = ln λ, t(z) = z, h(z) = 1/z!, A(η) = λ."""

    is_discrete = True

    def log_partition(self, natural: Tensor) -> Tensor:
        """λ, ``(...)``."""
        return natural.exp().squeeze(-1)

    def expectation(self, natural: Tensor) -> Tensor:
        """λ."""
        return natural.exp()

    def statistics(self, value: Tensor) -> Tensor:
        """The count itself."""
        return value

    def log_base(self, value: Tensor) -> Tensor:
        """−ln z!."""
        return -torch.lgamma(value + 1).squeeze(-1)

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """−E ln z!, ``(...)``: a sum over counts or, of a large rate, an asymptotic series."""
        eta = natural.double().squeeze(-1)
        rate = eta.exp()
        small = eta.clamp(max=math.log(LARGE_RATE)).unsqueeze(-1)
        count = torch.arange(COUNTS, dtype=torch.float64, device=natural.device)
        log_factorial = torch.lgamma(count + 1)
        # normalised: the errors of the exponents, common to all terms, cancel
        exact = ((count * small - log_factorial).softmax(-1) * log_factorial).sum(-1)
        large = rate.clamp(min=LARGE_RATE)
        entropy = 0.5 * (2 * math.pi * math.e * large).log()
        for power, coefficient in enumerate(ENTROPY_SERIES, 1):
            entropy = entropy - coefficient / large**power
        expanded = entropy + large * (large.log() - 1)
        return -torch.where(rate < LARGE_RATE, exact, expanded).to(natural.dtype)

    def mean(self, natural: Tensor) -> Tensor:
        """λ."""
        return natural.exp()

    def variance(self, natural: Tensor) -> Tensor:
        """λ."""
        return natural.exp()

    def natural(self, free: Tensor) -> Tensor:
        """ln λ, up to a rate that no count needs."""
        return bounded(free, LARGE_LOG_RATE, LARGEST_LOG_RATE)

    def feasible(self, natural: Tensor) -> Tensor:
        """Any number whose exponential is finite."""
        return (natural.isfinite() & natural.exp().isfinite()).all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., 1)``: exactly a count, with the gradient of λ (straight-through)."""
        rate = natural.exp()
        return torch.poisson(rate.detach()) + (rate - rate.detach())

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., 1)``."""
        return random.poisson(np.exp(natural)).astype(np.float64)

    def nearest(self, value: Tensor) -> Tensor:
        """The nearest count."""
        return value.round().clamp(min=0)
