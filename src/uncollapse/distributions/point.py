"""All mass on one point: what an autoencoder has in place of a posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from uncollapse.distributions.base import Distribution


@dataclass
class Point(Distribution):
    """z = mean, without noise, hence without a density.

    Parameters
    ----------
    mean : Tensor
        ``(..., D)``.
    """

    mean: Tensor

    def __post_init__(self) -> None:
        self.has_density = False

    def rsample(self) -> Tensor:
        """The point, ``(..., D)``."""
        return self.mean

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:  # noqa: ARG002
        """The point, over and over, ``(B, S, D)`` float64."""
        return self.mean.detach().double()[:, None].expand(-1, samples, -1)

    def map(self, change: Callable[[Tensor], Tensor]) -> Point:
        """The same with ``change`` applied to the point."""
        return Point(change(self.mean))
