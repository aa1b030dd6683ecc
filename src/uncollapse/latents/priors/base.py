"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from uncollapse.distributions.base import Distribution


class Prior(nn.Module, ABC):
    """p(z) of one latent of D dimensions.

    Attributes
    ----------
    dim : int
        D.
    """

    dim: int

    @property
    @abstractmethod
    def deviation(self) -> Tensor:
        """Standard deviation of each dimension, ``(D,)``: the unit in which a mean is large."""

    @abstractmethod
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU, whatever the device, so that a seed means one thing.

        ``codes`` ``(n, M)`` are the values that a discrete variable of the prior shall have, −1
        for any; only those with `code_sizes` take it.
        """

    @property
    def code_sizes(self) -> tuple[int, int] | None:
        """How many discrete variables M with how many values K `sample` can be given."""
        return None

    def in_support(self, z: Tensor) -> Tensor:
        """The points nearest to ``z`` ``(..., D)`` that the prior can give, ``(..., D)``."""
        return z

    def points(self, most: int) -> Tensor | None:  # noqa: ARG002
        """All ``(C, D)`` points that the prior can give, if they are finite and at most so many."""
        return None

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)``, ``(...)``, in nats."""

    @abstractmethod
    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior) in closed form, nats; None where there is no such form.

        Per dimension, ``(..., D)``, or ``(..., 1)`` where it does not split over dimensions.
        """


def draw_codes(
    n: int, size: tuple[int, int], generator: torch.Generator | None, codes: Tensor | None
) -> Tensor:
    """Uniform codes ``(n, M)`` of K values; where ``codes`` has one, that."""
    groups, values = size
    drawn = torch.randint(values, (n, groups), generator=generator)
    return drawn if codes is None else torch.where(codes < 0, drawn, codes)
