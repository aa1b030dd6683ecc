"""Exponential families: everything that follows from A(η), its gradient, and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution


class ExponentialFamily(ABC):
    """p(z|η) = h(z) exp(⟨η, t(z)⟩ − A(η)) of one unit: a number, a code, or a direction.

    Natural parameters η are ``(..., P)`` and values z ``(..., E)``; what is in front is batch.
    Densities and divergences are computed in float64, whatever the type of what they are
    given: they are small differences of large log-partitions where variances shrink or logits
    grow. A family in which even float64 is too short for that has forms of its own.

    Attributes
    ----------
    parameters, width : int
        P and E.
    is_discrete : bool
        Whether values are counted rather than measured.
    """

    parameters: int = 1
    width: int = 1
    is_discrete: bool = False

    # --- what a family is --------------------------------------------------------------------

    @abstractmethod
    def log_partition(self, natural: Tensor) -> Tensor:
        """A(η), ``(...)``; twice differentiable."""

    @abstractmethod
    def expectation(self, natural: Tensor) -> Tensor:
        """∇A(η) = E t(z), ``(..., P)``; differentiable."""

    @abstractmethod
    def statistics(self, value: Tensor) -> Tensor:
        """t(z) of values ``(..., E)``, ``(..., P)``."""

    def log_base(self, value: Tensor) -> Tensor:
        """log h(z) of values ``(..., E)``, ``(...)``."""
        return value.new_zeros(value.shape[:-1])

    def expected_log_base(self, natural: Tensor) -> Tensor:
        """E log h(z), ``(...)``: all that the entropy needs beside A and its gradient."""
        return natural.new_zeros(natural.shape[:-1])

    @abstractmethod
    def mean(self, natural: Tensor) -> Tensor:
        """E z, ``(..., E)``; differentiable."""

    @abstractmethod
    def variance(self, natural: Tensor) -> Tensor:
        """Var z of each of its numbers, ``(..., E)``."""

    @abstractmethod
    def natural(self, free: Tensor) -> Tensor:
        """Feasible natural parameters from any real numbers, both ``(..., P)``."""

    @abstractmethod
    def feasible(self, natural: Tensor) -> Tensor:
        """Whether A(η) is finite, ``(...)`` bool."""

    @abstractmethod
    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., E)`` from PyTorch's global random state.

        With gradients, where the family has a reparameterisation; a discrete one has none.
        """

    @abstractmethod
    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., E)`` float64 of natural parameters ``(..., P)`` float64."""

    def nearest(self, value: Tensor) -> Tensor:
        """The value that can occur and is nearest to ``value``, both ``(..., E)``."""
        return value

    # --- what follows ------------------------------------------------------------------------

    def log_prob(self, value: Tensor, natural: Tensor) -> Tensor:
        """log p(z|η), ``(...)``, nats; the two broadcast."""
        wide_value, wide = value.double(), natural.double()
        product = (wide * self.statistics(wide_value)).sum(-1)
        log_prob = product - self.log_partition(wide) + self.log_base(wide_value)
        return log_prob.to(torch.promote_types(value.dtype, natural.dtype))

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """KL(q ‖ p) = A(p) − A(q) − ⟨p − q, ∇A(q)⟩ of natural parameters that broadcast, nats."""
        wide_q, wide_p = q.double(), p.double()
        gap = ((wide_p - wide_q) * self.expectation(wide_q)).sum(-1)
        kl = self.log_partition(wide_p) - self.log_partition(wide_q) - gap
        return kl.clamp(min=0).to(q.dtype)

    def entropy(self, natural: Tensor) -> Tensor:
        """A(η) − ⟨η, ∇A(η)⟩ − E log h(z), ``(...)``, nats."""
        wide = natural.double()
        product = (wide * self.expectation(wide)).sum(-1)
        entropy = self.log_partition(wide) - product - self.expected_log_base(wide)
        return entropy.to(natural.dtype)

    def average(self, weights: Tensor, naturals: Tensor) -> Tensor:
        """The averaged prior's η̄ = Σ_k w_k η_k, ``(..., P)``, float64.

        Parameters
        ----------
        weights : Tensor
            ``(..., K)``: w, which sum to 1.
        naturals : Tensor
            ``(..., K, P)``; what is in front broadcasts against the weights'.
        """
        return (weights.double().unsqueeze(-2) @ naturals.double()).squeeze(-2)

    def dispersion(self, weights: Tensor, naturals: Tensor) -> Tensor:
        """L_d = Σ_k w_k A(η_k) − A(η̄) ≥ 0, ``(...)``, nats; parameters as for `average`.

        Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
        Generation", eq. 8; Σ_k w_k KL(q ‖ p_k) = KL(q ‖ p_η̄) + L_d for every q of the family.
        Computed by that, with p_η̄ for q: no term is negative, and rounded weights, whose sum
        is not quite 1, do no harm.
        """
        average = self.average(weights, naturals).unsqueeze(-2)  # (..., 1, P)
        each = self.kl(average, naturals)  # (..., K)
        return (weights.double() * each).sum(-1).to(weights.dtype)

    def weighted_variance(self, weights: Tensor, naturals: Tensor) -> Tensor:
        """Var = Σ_k w_k ‖η_k‖² − ‖η̄‖², ``(...)``; parameters as for `average`."""
        wide = naturals.double()
        wide = wide - wide.mean(-2, keepdim=True)  # a common shift changes nothing but digits
        squares = wide.square().sum(-1)  # (..., K)
        mean = self.average(weights, wide)
        each = (weights.double().unsqueeze(-2) @ squares.unsqueeze(-1)).squeeze(-1).squeeze(-1)
        return (each - mean.square().sum(-1)).clamp(min=0).to(weights.dtype)

    def of(self, posterior: Distribution) -> Tensor:
        """Natural parameters ``(..., U, P)`` of a distribution over U units of this family."""
        assert isinstance(posterior, Member)
        return posterior.natural


class FiniteFamily(ExponentialFamily):
    """A family of V values: those of a discrete variable, which a relaxation can stand in for."""

    is_discrete = True

    @abstractmethod
    def values(self) -> Tensor:
        """All values, ``(V, E)``."""

    @abstractmethod
    def log_probs(self, natural: Tensor) -> Tensor:
        """Log-probabilities of all values, ``(..., V)``, in the type of ``natural``."""

    @abstractmethod
    def relaxed(self, natural: Tensor, temperature: float) -> Tensor:
        """Draw ``(..., E)`` between the values, with gradients; at 0 one of the values.

        Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"; Maddison et al.
        2017, "The Concrete Distribution" (the binary form).
        """


# how a training sample of a discrete family is made, from natural parameters ``(..., P)``
Relaxation = Callable[[Tensor], Tensor]


@dataclass
class Member(Distribution):
    """U independent units of one family, D = U · E numbers side by side.

    Parameters
    ----------
    family : ExponentialFamily
    natural : Tensor
        ``(..., U, P)``.
    relaxation : callable, optional
        Replaces the sampler of `rsample`: the Gumbel-softmax of a discrete family.
    """

    family: ExponentialFamily
    natural: Tensor
    relaxation: Relaxation | None = None

    @property
    def mean(self) -> Tensor:
        """E z, ``(..., D)``."""
        return self.family.mean(self.natural).flatten(-2)

    def rsample(self) -> Tensor:
        """Draw one sample, ``(..., D)``, with gradients if the family or a relaxation has any."""
        sampler = self.family.rsample if self.relaxation is None else self.relaxation
        return sampler(self.natural).flatten(-2)

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64 of a batch ``(B,)``; never relaxed."""
        natural = self.natural.detach().double().cpu().numpy()  # (B, U, P)
        rows = [
            self.family.simulate(np.broadcast_to(row, (samples, *row.shape)), stream)  # (S, U, E)
            for row, stream in zip(natural, streams, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).flatten(-2).to(self.natural.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z ``(..., D)`` or, for a batch ``(B,)``, ``(B, S, D)``; nats."""
        natural = self.natural
        if z.dim() == 3 and natural.dim() == 3:
            natural = natural[:, None]  # (B, 1, U, P)
        return self.family.log_prob(self._units(z), natural).sum(-1)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j) of z ``(M, D)``, ``(M, N)`` float64, up to a term that depends on z."""
        natural = self.natural.double()  # (N, U, P)
        statistics = self.family.statistics(self._units(z.double()))  # (M, U, P)
        product = statistics.flatten(1) @ natural.flatten(1).t()
        return product - self.family.log_partition(natural).sum(-1)

    def map(self, change: Callable[[Tensor], Tensor]) -> Member:
        """The same with ``change`` applied to the natural parameters."""
        return replace(self, natural=change(self.natural))

    def _units(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (-1, self.family.width))  # (..., U, E)
