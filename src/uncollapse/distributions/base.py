"""What the rest of the package knows of a distribution over z."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

D = TypeVar("D", bound="Distribution")


class Distribution(ABC):
    """A distribution over z ``(..., D)`` for every element of a batch ``(...)``.

    Attributes
    ----------
    mean : Tensor
        E z, ``(..., D)``.
    has_density : bool
        Whether `log_prob` exists.
    """

    mean: Tensor
    has_density: bool = True

    @abstractmethod
    def rsample(self) -> Tensor:
        """Draw one reparameterised sample from PyTorch's global random state, ``(..., D)``."""

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """A sample ``(..., D)`` and its own log-density ``(...)``, with gradients through both."""
        z = self.rsample()
        return z, self.log_prob(z)

    @abstractmethod
    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64 of a batch ``(B,)``, without gradients.

        Row i depends on ``streams[i]`` and the number of samples alone.
        """

    def log_prob(self, z: Tensor) -> Tensor:  # noqa: ARG002
        """Log-density of z ``(..., D)``, ``(...)``, in nats.

        For a batch ``(B,)`` also of z ``(B, S, D)``, ``(B, S)``.
        """
        raise TypeError(f"{type(self).__name__} has no density")

    def pairwise_log_prob(self, z: Tensor) -> Tensor:  # noqa: ARG002
        """log q(z_i|x_j) of z ``(M, D)`` under a batch ``(N,)``, ``(M, N)``, float64.

        Up to a term that depends on z alone.
        """
        raise TypeError(f"{type(self).__name__} has no density")

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with ``change`` applied to every tensor that has the batch shape in front."""

    def __getitem__(self, rows: Tensor | slice | int | tuple) -> Self:
        return self.map(lambda values: values[rows])


def tensors_of(distribution: Distribution) -> list[Tensor]:
    """Every tensor that has the batch shape in front, in the order of `Distribution.map`."""
    found: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        found.append(values)
        return values

    distribution.map(keep)
    return found


def joined(like: D, parts: Sequence[Sequence[Tensor]]) -> D:
    """One distribution over the batches of several, given by their `tensors_of`.

    What does not have the batch shape in front is that of ``like``, one of their kind.
    """
    columns = iter([torch.cat(column) for column in zip(*parts, strict=True)])
    return like.map(lambda _: next(columns))


def join(parts: Sequence[D]) -> D:
    """One distribution over all the batches of several of a kind, one after the other."""
    return joined(parts[0], [tensors_of(part) for part in parts])


def aligned(parameter: Tensor, z: Tensor) -> Tensor:
    """A parameter ``(B, D)`` as it stands beside z ``(B, D)`` or ``(B, S, D)``."""
    return parameter[:, None] if z.dim() == 3 and parameter.dim() == 2 else parameter
