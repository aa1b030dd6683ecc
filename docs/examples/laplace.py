"""A Laplace posterior: heavier tails than a Gaussian's, one file, one recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from uncollapse.cli import main
from uncollapse.config import Section
from uncollapse.distributions.base import Distribution, aligned
from uncollapse.extending import add_piece
from uncollapse.latents.posteriors import Posterior


@dataclass
class Laplace(Distribution):
    """Independent Laplace distributions, mean and log of the scale ``(..., D)``."""

    mean: Tensor
    log_scale: Tensor

    def rsample(self) -> Tensor:
        """Draw ``(..., D)`` in a way that gradients reach mean and scale."""
        below = torch.rand_like(self.mean) - 0.5  # U(−½, ½)
        magnitude = -torch.log1p((-2 * below.abs()).clamp(min=-1 + 1e-7))
        return self.mean + self.log_scale.exp() * below.sign() * magnitude

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` for measurements: row i depends on ``streams[i]`` alone."""
        size = samples, self.mean.shape[-1]
        noise = torch.from_numpy(np.stack([stream.laplace(size=size) for stream in streams]))
        mean, scale = self.mean.detach().double(), self.log_scale.detach().double().exp()
        return mean[:, None] + scale[:, None] * noise.to(mean.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z ``(B, D)`` or ``(B, S, D)``, summed over D."""
        mean, log_scale = aligned(self.mean, z), aligned(self.log_scale, z)
        distance = (z - mean).abs() * (-log_scale).exp()  # (..., D)
        return -(distance + log_scale + math.log(2)).sum(-1)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j) ``(M, N)``, for the mutual information."""
        found = z.new_zeros(len(z), len(self.mean), dtype=torch.float64)
        for d in range(z.shape[-1]):  # so that no M × N × D array is needed
            log_scale = self.log_scale[:, d].double()
            distance = (z[:, d, None].double() - self.mean[:, d].double()).abs()
            found -= distance * (-log_scale).exp() + log_scale
        return found

    def map(self, change: Callable[[Tensor], Tensor]) -> Laplace:
        """The same with ``change`` applied to both parameters."""
        return Laplace(change(self.mean), change(self.log_scale))


class LaplaceConfig(Section):
    """What a recipe may say of it; any other key is refused by name."""

    kind: Literal["laplace"]
    bias: bool = False


class LaplacePosterior(Posterior):
    """q(z|x), its parameters read by one linear map of the features ``(..., H)``."""

    def __init__(self, config: LaplaceConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, 2 * dim, bias=config.bias)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Laplace:  # noqa: ARG002
        """Posterior of every sentence."""
        return Laplace(*self.linear(features).chunk(2, -1))


add_piece("posterior", LaplaceConfig, LaplacePosterior)

if __name__ == "__main__":  # every verb of the program, which now knows of the piece
    main()
