"""What a decoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from uncollapse.data.batches import Batch


class Decoder(nn.Module, ABC):
    """log p(x|z) with ``</s>`` counted and ``<s>`` not, in nats; padding never counts."""

    @abstractmethod
    def log_prob(self, z: Tensor | None, batch: Batch) -> Tensor:
        """Of every sentence, ``(B,)``, for training; ``z`` ``(B, D)``, None without latents."""

    @abstractmethod
    def log_prob_samples(self, z: Tensor | None, batch: Batch) -> Tensor:
        """Of many ``z`` ``(B, S, D)`` of every sentence, ``(B, S)``, without gradients.

        Memory must depend neither on S · T nor on T · V.
        """
