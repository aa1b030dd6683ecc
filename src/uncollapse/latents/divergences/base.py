"""What a divergence is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from uncollapse.config import CriticConfig
from uncollapse.encoders.context import Condition
from uncollapse.latents.inference import Inference


class Divergence(nn.Module, ABC):
    """What the objective charges for a posterior that differs from the prior.

    Its parameters, if it has any, belong to the critic: they learn by `critic_loss`, before
    every step of the others.

    Attributes
    ----------
    critic : CriticConfig or None
        How they learn.
    needs_density : bool
        Whether it can only be had of a posterior with a density.
    """

    needs_density: bool = True

    critic: CriticConfig | None = None

    @abstractmethod
    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``, floors applied."""

    def critic_loss(self, inference: Inference) -> Tensor:  # noqa: ARG002
        """What the critic lowers, per sentence, ``(B,)``; only asked of those that have one."""
        raise TypeError(f"{type(self).__name__} has no critic")


def context_vector(condition: Condition | None) -> Tensor | None:
    """The contexts ``(B, C)`` that a critic is told of; they learn nothing from it."""
    return None if condition is None else condition.vector.detach().float()


def beside(z: Tensor, context: Tensor | None) -> Tensor:
    """``(B, D + C)``: z and, where there is any, its context."""
    return z if context is None else torch.cat([z, context.to(z)], -1)
