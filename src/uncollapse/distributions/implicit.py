"""A distribution that can be drawn from and has no density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import standard_normal

MEAN_DRAWS = 64  # and as many mirrored ones


@dataclass
class Implicit(Distribution):
    """z = sampler(features, ε), ε ~ N(0, I).

    Parameters
    ----------
    features : Tensor
        ``(..., H)``.
    sampler : callable
        From features ``(..., H)`` and noise ``(..., E)`` to z ``(..., D)``.
    noise_dim : int
        E.
    """

    features: Tensor
    sampler: Callable[[Tensor, Tensor], Tensor]
    noise_dim: int

    def __post_init__(self) -> None:
        self.has_density = False

    @property
    def mean(self) -> Tensor:
        """E z over the same noise and its mirror image for all, ``(..., D)``.

        Exact where z is linear in the noise.
        """
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(MEAN_DRAWS, self.noise_dim, generator=generator).to(self.features)
        total = torch.zeros(())
        for noise in torch.cat([half, -half]):  # one at a time: a batch of features is large
            shape = (*self.features.shape[:-1], self.noise_dim)
            total = self.sampler(self.features, noise.expand(shape)) + total.to(self.features)
        return total / (2 * MEAN_DRAWS)

    def rsample(self) -> Tensor:
        """Draw one reparameterised sample, ``(..., D)``."""
        noise = self.features.new_empty(*self.features.shape[:-1], self.noise_dim).normal_()
        return self.sampler(self.features, noise)

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64; row i depends on ``streams[i]`` alone."""
        noise = standard_normal(streams, samples, self.noise_dim).to(self.features)
        features = self.features[:, None].expand(-1, samples, -1)
        with torch.no_grad():
            return self.sampler(features, noise).double()

    def map(self, change: Callable[[Tensor], Tensor]) -> Implicit:
        """The same with ``change`` applied to the features."""
        return Implicit(change(self.features), self.sampler, self.noise_dim)
