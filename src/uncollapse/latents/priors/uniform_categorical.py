"""The uniform prior over codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import FiniteFamily, Member
from uncollapse.latents.priors.base import Prior, draw_codes


class UniformCategorical(Prior):
    """Every value of every unit of a discrete latent is as likely.

    Parameters
    ----------
    family : FiniteFamily
    units : int
        U.
    """

    values: Tensor

    def __init__(self, family: FiniteFamily, units: int) -> None:
        super().__init__()
        self.family = family
        self.units = units
        self.dim = units * family.width
        self.register_buffer("values", family.values(), persistent=False)  # (V, E)

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
        return self.values.cpu()[draw_codes(n, self.code_sizes, generator, codes)].flatten(1)

    def in_support(self, z: Tensor) -> Tensor:
        """The codes nearest to ``z`` ``(..., D)``, ``(..., D)``."""
        return self.family.nearest(z.unflatten(-1, (self.units, -1))).flatten(-2)

    def points(self, most: int) -> Tensor | None:
        """All ``(C, D)`` codes, if they are at most so many."""
        return every_code(self.values, self.units, most)

    def log_prob(self, z: Tensor) -> Tensor:
        """−U ln V for all ``z`` ``(..., D)``, ``(...)``, nats."""
        return z.new_full(z.shape[:-1], -self.units * math.log(len(self.values)))

    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior) per unit, ``(..., U)``, nats; None for another family."""
        if not isinstance(posterior, Member) or posterior.family.width != self.family.width:
            return None
        # natural parameters of 0 are the uniform distribution
        return self.family.kl(posterior.natural, torch.zeros_like(posterior.natural))


def every_code(values: Tensor, units: int, most: int) -> Tensor | None:
    """All combinations of ``values`` ``(V, E)``, ``(C, U · E)``; None if more than ``most``."""
    count = len(values)
    if units * math.log(count) > math.log(most) + 1e-9:
        return None
    digits = torch.cartesian_prod(*[torch.arange(count)] * units).view(-1, units)
    return values[digits.to(values.device)].flatten(1)
