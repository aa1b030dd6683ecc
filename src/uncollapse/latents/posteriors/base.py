"""What a posterior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from uncollapse.distributions.gaussian import DiagonalGaussian


class Posterior(nn.Module, ABC):
    """From features to q(z|x).

    Attributes
    ----------
    has_density : bool
        Whether q(z|x) has one; without, there is neither a KL nor a likelihood.
    """

    has_density: ClassVar[bool]

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """Posterior of features ``(..., H)``; ``mask`` ``(...)`` tells which are real."""
