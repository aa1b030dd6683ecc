"""A Gaussian seen through an invertible map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import DiagonalGaussian


class Flow(Protocol):
    """An invertible map, the same for all of a batch, layer upon layer."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image of ``(..., D)``, and log |det J|, ``(...)``."""
        ...

    def inputs(self, z: Tensor) -> list[Tensor]:
        """What every layer was given to end at z ``(..., D)``; the first is the inverse of z."""
        ...


@dataclass
class Transformed(Distribution):
    """The distribution of f(y), y ~ base.

    One f for all sentences: their densities at a z differ as those of the bases do at the
    inverse of z, so mutual information is that of the bases.

    Parameters
    ----------
    base : DiagonalGaussian
    flow : callable
        f. Its parameters are not the batch's: `map` leaves them, and they follow the type and
        device of z.
    """

    base: DiagonalGaussian
    flow: Flow

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, ``(..., D)``: E z has no closed form, and is another."""
        return self.flow(self.base.mean)[0]

    def rsample(self) -> Tensor:
        """Draw one reparameterised sample, ``(..., D)``."""
        return self.flow(self.base.rsample())[0]

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """A sample ``(..., D)`` and its log-density ``(...)``, without an inversion."""
        start, log_prob = self.base.rsample_with_log_prob()
        z, log_det = self.flow(start)
        return z, log_prob - log_det

    @torch.no_grad()
    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64; row i depends on ``streams[i]`` alone."""
        return self.flow(self.base.draw(streams, samples))[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of any z ``(..., D)`` or ``(B, S, D)``, nats.

        In float64 inside: the inverse has as few good digits as its map has small slopes.
        """
        start, log_det = self._inverse(z)
        return (self.base.map(Tensor.double).log_prob(start) - log_det).to(z.dtype)

    @torch.no_grad()
    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j), ``(M, N)`` float64, without gradients, up to the base's constant."""
        start, log_det = self._inverse(z)
        return self.base.pairwise_log_prob(start) - log_det[:, None]

    def map(self, change: Callable[[Tensor], Tensor]) -> Transformed:
        """The same with ``change`` applied to the base."""
        return Transformed(self.base.map(change), self.flow)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What f maps to z, and log |det J| there; float64."""
        start = self.flow.inputs(z.double())[0]
        return start, self.flow(start)[1]
