"""Mixtures of an exponential family as priors, and what the averaged prior makes of their KL."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import ExponentialFamily, FiniteFamily
from uncollapse.encoders.context import Condition
from uncollapse.latents.priors.base import Prior, aligned_weights, draw_codes
from uncollapse.latents.priors.policy import Policy
from uncollapse.latents.priors.uniform_categorical import every_code


@dataclass
class MixtureKL:
    """KL(q(z|x) q(c|x) ‖ p(z|c) p(c)) in parts, nats.

    References
    ----------
    Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
    Generation", eqs. 5–8.

    Parameters
    ----------
    component : Tensor
        ``(B, M)``: KL(q(c|x) ‖ p(c)).
    average : Tensor
        ``(B, M, U)``: KL(q(z|x) ‖ averaged prior).
    dispersion : Tensor
        ``(B, M, U)``: L_d, by which the averaged prior is nearer than the components are.
    """

    component: Tensor
    average: Tensor
    dispersion: Tensor

    @property
    def per_dimension(self) -> Tensor:
        """The whole, of every unit and then of every group's component, ``(B, M · U + M)``."""
        return torch.cat([(self.average + self.dispersion).flatten(1), self.component], 1)


class Mixture(Prior):
    """p(z) = Π_m 1/K Σ_k p(z_m | η_mk): M independent mixtures of K members of a family.

    Components start at random, natural parameters from standard normal numbers, as in the
    code of Shi et al. 2020: means and log-variances for the Gaussian.

    Parameters
    ----------
    family : ExponentialFamily
    groups, units, components : int
        M, the units U of a group, and K.
    policy : Policy, optional
        p(c|context) in place of 1/K.
    """

    log_weights: Tensor | None = None  # (B, M, K), once contexts are given

    def __init__(
        self,
        family: ExponentialFamily,
        groups: int,
        units: int,
        components: int,
        policy: Policy | None = None,
    ) -> None:
        super().__init__()
        self.family = family
        self.groups = groups
        self.units = units
        self.components = components
        self.dim = groups * units * family.width
        self.free = nn.Parameter(torch.randn(groups, units, components, family.parameters))
        self.policy = policy

    def given(self, condition: Condition | None) -> Mixture:
        """The prior of the rows of a condition: their components are as probable as it says."""
        if self.policy is None or condition is None:
            return self
        own = copy(self)  # shares all parameters
        own.log_weights = self.policy(condition)
        return own

    @property
    def natural(self) -> Tensor:
        """Natural parameters of the components, ``(M, U, K, P)`` float64, with gradients."""
        return self.family.natural(self.free.double())

    @property
    def deviation(self) -> Tensor:
        """That of the whole mixture, ``(D,)``: within components and between them."""
        with torch.no_grad():
            natural = self.natural
            within = self.family.variance(natural).mean(2)  # (M, U, E)
            between = self.family.mean(natural).var(2, correction=0)
            return (within + between).sqrt().flatten().float()

    @property
    def code_sizes(self) -> tuple[int, int]:
        """M variables of K values."""
        return self.groups, self.components

    def sample(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU; ``codes`` ``(n, M)`` are components, −1 for any."""
        codes = self.codes(n, generator, codes)
        natural = self.natural.detach().cpu().transpose(1, 2)  # (M, K, U, P)
        chosen = natural[torch.arange(self.groups), codes]  # (n, M, U, P)
        seed = int(torch.randint(2**62, (), generator=generator))
        z = self.family.simulate(chosen.numpy(), np.random.default_rng(seed))  # (n, M, U, E)
        z = torch.from_numpy(np.asarray(z, np.float64)).flatten(1).float()
        return self.in_support(z)  # float32 would round what is next to an edge onto it

    def codes(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw components ``(n, M)``; where ``codes`` has one, that."""
        return draw_codes(n, self.code_sizes, generator, codes, self.log_weights)

    def in_support(self, z: Tensor) -> Tensor:
        """The points nearest to ``z`` ``(..., D)`` that the family can give, ``(..., D)``."""
        return self.family.nearest(self._by_group(z)).flatten(-3)

    def points(self, most: int) -> Tensor | None:
        """All ``(C, D)`` codes of a finite discrete family, if they are at most so many."""
        if not isinstance(self.family, FiniteFamily):
            return None
        values = self.family.values().to(self.free.device)
        return every_code(values, self.groups * self.units, most)

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log p(z_m | c_m = k) of ``z`` ``(..., D)``, ``(..., M, K)`` float64, nats."""
        value, natural = self._by_group(z.double()), self.natural
        statistics = self.family.statistics(value).flatten(-2)  # (..., M, U · P)
        by_component = natural.transpose(1, 2).flatten(2)  # (M, K, U · P)
        product = torch.einsum("...mp,mkp->...mk", statistics, by_component)
        base = self.family.log_base(value).sum(-1)  # (..., M)
        return product - self.family.log_partition(natural).sum(1) + base.unsqueeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` ``(..., D)``, ``(...)``, nats; which components it is from is
        marginalised exactly."""
        by_component = self.component_log_prob(z)  # (..., M, K)
        if self.log_weights is None:
            by_group = by_component.logsumexp(-1) - math.log(self.components)
        else:
            by_group = (by_component + aligned_weights(self.log_weights, z)).logsumexp(-1)
        return by_group.sum(-1).to(z.dtype)

    def kl(self, posterior: Distribution) -> Tensor | None:  # noqa: ARG002
        """None: the KL to a mixture has no closed form; see `decompose` for a bound on it."""
        return None

    def decompose(self, posterior: Distribution, log_weights: Tensor) -> MixtureKL:
        """The KL of q(z|x) q(c|x), which is never below that of q(z|x) alone.

        Parameters
        ----------
        posterior : Distribution
            ``(B, D)`` of the prior's family.
        log_weights : Tensor
            ``(B, M, K)``: log q(c|x).
        """
        q = self.family.of(posterior).unflatten(-2, (self.groups, self.units))  # (B, M, U, P)
        natural = self.natural  # (M, U, K, P)
        weights = log_weights.exp()
        dtype = log_weights.dtype
        by_unit = weights[:, :, None]  # (B, M, 1, K)
        average = self.family.kl(q, self.family.average(by_unit, natural))  # (B, M, U)
        prior = -math.log(self.components) if self.log_weights is None else self.log_weights
        component = (weights * (log_weights - prior)).sum(-1)  # (B, M)
        return MixtureKL(
            component.clamp(min=0),
            average.to(dtype),
            self.family.dispersion(by_unit, natural),
        )

    def weighted_variance(self, log_weights: Tensor) -> Tensor:
        """Var of the natural parameters of the components, ``(B, M)``, under log q(c|x)."""
        by_unit = log_weights.exp()[:, :, None]  # (B, M, 1, K)
        return self.family.weighted_variance(by_unit, self.natural).sum(-1)

    def _by_group(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.groups, self.units, self.family.width))  # (..., M, U, E)
