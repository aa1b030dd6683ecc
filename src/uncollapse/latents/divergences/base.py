"""What a divergence is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from uncollapse.latents.inference import Inference
from uncollapse.latents.priors import Prior


class Divergence(ABC):
    """What the objective charges for a posterior that differs from the prior."""

    @abstractmethod
    def __call__(self, inference: Inference, prior: Prior) -> Tensor:
        """Nats per sentence, ``(B,)``, floors applied."""
