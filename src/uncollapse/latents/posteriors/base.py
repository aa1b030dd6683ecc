"""What a posterior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from uncollapse.distributions.base import Distribution


class Posterior(nn.Module, ABC):
    """From features to q(z|x).

    Attributes
    ----------
    has_density : bool
        Whether q(z|x) has one; without, its KL is unknown.
    is_random : bool
        Whether z is random given x; otherwise the model is an autoencoder and has no
        likelihood.
    width : int
        Numbers that a unit puts into z.
    """

    has_density: ClassVar[bool] = True
    is_random: ClassVar[bool] = True
    width: int = 1

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> Distribution:
        """Posterior of features ``(..., H)``; ``mask`` ``(...)`` tells which are real."""

    def schedule(self, epochs: float) -> None:
        """Take note of how many epochs of training are over, where anything depends on it."""
