"""The uniform prior over codes."""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import FiniteFamily, Member
from uncollapse.encoders.context import Condition
from uncollapse.latents.discrete import unit_log_probs
from uncollapse.latents.priors.base import Prior, aligned_weights, draw_codes
from uncollapse.latents.priors.policy import Policy


class UniformCategorical(Prior):
    """Every value of every unit of a discrete latent is as likely.

    Parameters
    ----------
    family : FiniteFamily
    units : int
        U.
    policy : Policy, optional
        How likely they are given a context.
    """

    values: Tensor
    log_weights: Tensor | None = None  # (B, U, V), once contexts are given

    def __init__(self, family: FiniteFamily, units: int, policy: Policy | None = None) -> None:
        super().__init__()
        self.family = family
        self.units = units
        self.dim = units * family.width
        self.policy = policy
        self.register_buffer("values", family.values(), persistent=False)  # (V, E)

    def given(self, condition: Condition | None) -> UniformCategorical:
        """The prior of the rows of a condition."""
        if self.policy is None or condition is None:
            return self
        own = copy(self)  # shares all parameters
        own.log_weights = self.policy(condition)
        return own

    @property
    def deviation(self) -> Tensor:
        """That of each number of a value."""
        return self.values.std(0, correction=0).repeat(self.units)

    @property
    def code_sizes(self) -> tuple[int, int]:
        """U variables of V values."""
        return self.units, len(self.values)

    def sample(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU; ``codes`` ``(n, U)`` fixes units, −1 leaves one free."""
        return self.values.cpu()[self.codes(n, generator, codes)].flatten(1)

    def codes(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw values ``(n, U)``; where ``codes`` has one, that."""
        return draw_codes(n, self.code_sizes, generator, codes, self.log_weights)

    def in_support(self, z: Tensor) -> Tensor:
        """The codes nearest to ``z`` ``(..., D)``, ``(..., D)``."""
        return self.family.nearest(z.unflatten(-1, (self.units, -1))).flatten(-2)

    def points(self, most: int) -> Tensor | None:
        """All ``(C, D)`` codes, if they are at most so many."""
        return every_code(self.values, self.units, most)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-probability of ``z`` ``(..., D)``, ``(...)``, nats: −U ln V without a context.

        Given contexts, that of the nearest code; ``(B, S, D)`` has S points a row.
        """
        if self.log_weights is None:
            return z.new_full(z.shape[:-1], -self.units * math.log(len(self.values)))
        units = z.unflatten(-1, (self.units, -1))  # (..., U, E)
        distance = (units[..., None, :] - self.values.to(z)).square().sum(-1)  # (..., U, V)
        weights = aligned_weights(self.log_weights, z).expand(distance.shape)
        return weights.gather(-1, distance.argmin(-1, keepdim=True)).sum((-2, -1)).to(z.dtype)

    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior) per unit, ``(..., U)``, nats; None for another family."""
        if not isinstance(posterior, Member) or posterior.family.width != self.family.width:
            return None
        # natural parameters of 0 are the uniform distribution
        uniform = self.family.kl(posterior.natural, torch.zeros_like(posterior.natural))
        if self.log_weights is None:
            return uniform
        own = unit_log_probs(posterior)
        assert own is not None
        prior = self.log_weights + math.log(len(self.values))
        return uniform - (own.exp() * prior).sum(-1)


def every_code(values: Tensor, units: int, most: int) -> Tensor | None:
    """All combinations of ``values`` ``(V, E)``, ``(C, U · E)``; None if more than ``most``."""
    count = len(values)
    if units * math.log(count) > math.log(most) + 1e-9:
        return None
    digits = torch.cartesian_prod(*[torch.arange(count)] * units).view(-1, units)
    return values[digits.to(values.device)].flatten(1)
