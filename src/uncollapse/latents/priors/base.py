"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from uncollapse.distributions.base import Distribution
from uncollapse.encoders.context import Condition


class Prior(nn.Module, ABC):
    """p(z) of one latent of D dimensions, or p(z|context) of the rows that it was `given`.

    Attributes
    ----------
    dim : int
        D.
    has_density : bool
        Whether `log_prob` exists; without it there is neither a KL nor an ELBO, and samples
        are all that there is.
    """

    has_density: ClassVar[bool] = True
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

    def rsample(self, n: int) -> Tensor:
        """Draw ``(n, D)`` from PyTorch's global random state.

        Gradients reach the networks of a prior that has any; see `sample` for a seed.
        """
        return self.sample(n)

    @property
    def code_sizes(self) -> tuple[int, int] | None:
        """How many discrete variables M with how many values K `sample` can be given."""
        return None

    def given(self, condition: Condition | None) -> Prior:  # noqa: ARG002
        """The prior of the rows of a condition; itself, where it does not depend on any."""
        return self

    def given_turns(self, condition: Condition) -> Prior:  # noqa: ARG002
        """The prior after each turn of the contexts; itself, where it does not depend on any."""
        return self

    def relative(self, posterior: Distribution) -> Distribution:
        """A posterior in coordinates in which the prior is the same in every context.

        So that what z owes to the context does not count as what it knows of the sentence. The
        posterior as it is, where the prior has none such.
        """
        return posterior

    def relative_points(self, z: Tensor) -> Tensor:
        """Points ``z`` ``(B, D)`` of the rows in the coordinates of `relative`."""
        return z

    def absolute_points(self, z: Tensor) -> Tensor:
        """The inverse of `relative_points`, also of ``z`` ``(B, S, D)``."""
        return z

    def codes(
        self,
        n: int,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
        codes: Tensor | None = None,
    ) -> Tensor | None:
        """Draw values ``(n, M)`` of the discrete variables; where ``codes`` has one, that."""
        return codes

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
    n: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    codes: Tensor | None,
    log_weights: Tensor | None = None,
) -> Tensor:
    """Codes ``(n, M)`` of K values, uniform or of log-probabilities ``(n, M, K)``.

    Where ``codes`` has a value, not −1, that.
    """
    groups, values = size
    if log_weights is None:
        drawn = torch.randint(values, (n, groups), generator=generator)
    else:
        below = log_weights.detach().double().cpu().exp().cumsum(-1)  # (n, M, K)
        point = torch.rand(n, groups, 1, generator=generator, dtype=torch.float64)
        drawn = (below < point * below[..., -1:]).sum(-1).clamp(max=values - 1)
    return drawn if codes is None else torch.where(codes < 0, drawn, codes)


def aligned_weights(log_weights: Tensor, z: Tensor) -> Tensor:
    """Log-probabilities ``(B, M, K)`` that broadcast against those of ``z`` ``(B, …, D)``."""
    between = [1] * (z.dim() - 2)
    return log_weights.view(len(log_weights), *between, *log_weights.shape[1:])
