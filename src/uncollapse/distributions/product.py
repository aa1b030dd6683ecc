"""Independent latents side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution


@dataclass
class Product(Distribution):
    """q(z|x) = Π_k q_k(z_k|x), dimensions side by side.

    Parameters
    ----------
    parts : list of Distribution
        Over one batch.
    """

    parts: list[Distribution]

    def __post_init__(self) -> None:
        self.has_density = all(part.has_density for part in self.parts)

    @property
    def mean(self) -> Tensor:
        """E z, ``(..., D)``."""
        return torch.cat([part.mean for part in self.parts], -1)

    def rsample(self) -> Tensor:
        """Draw one reparameterised sample, ``(..., D)``."""
        return torch.cat([part.rsample() for part in self.parts], -1)

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64."""
        return torch.cat([part.draw(streams, samples) for part in self.parts], -1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z ``(..., D)`` or ``(B, S, D)``, nats."""
        pairs = zip(self.parts, self._split(z), strict=True)
        return torch.stack([part.log_prob(own) for part, own in pairs]).sum(0)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j), ``(M, N)``, up to a term that depends on z alone."""
        pairs = zip(self.parts, self._split(z), strict=True)
        return torch.stack([part.pairwise_log_prob(own) for part, own in pairs]).sum(0)

    def map(self, change: Callable[[Tensor], Tensor]) -> Product:
        """The same with ``change`` applied to the tensors of every part."""
        return Product([part.map(change) for part in self.parts])

    def _split(self, z: Tensor) -> tuple[Tensor, ...]:
        return z.split([part.mean.shape[-1] for part in self.parts], -1)


def side_by_side(parts: list[Distribution]) -> Distribution:
    """Independent latents as one distribution; a single one is itself."""
    return parts[0] if len(parts) == 1 else Product(parts)
