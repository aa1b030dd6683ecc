"""What a divergence is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from uncollapse.config import CriticConfig
from uncollapse.latents.inference import Inference
from uncollapse.latents.priors import Prior


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
    def forward(self, inference: Inference, prior: Prior) -> Tensor:
        """Nats per sentence, ``(B,)``, floors applied."""

    def critic_loss(self, inference: Inference, prior: Prior) -> Tensor:  # noqa: ARG002
        """What the critic lowers, per sentence, ``(B,)``; only asked of those that have one."""
        raise TypeError(f"{type(self).__name__} has no critic")
