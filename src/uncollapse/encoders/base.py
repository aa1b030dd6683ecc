"""What an encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from uncollapse.data.batches import Batch


@dataclass
class Encoded:
    """What an encoder hands to the readouts.

    Parameters
    ----------
    states : Tensor
        ``(B, T, H)``; what stands at padded steps is undefined.
    summary : Tensor
        ``(B, H)``: the state after the whole sentence was read, in each direction.
    mask : Tensor
        ``(B, T)``, True at real steps (``<s>`` and ``</s>`` are real).
    """

    states: Tensor
    summary: Tensor
    mask: Tensor


class Encoder(nn.Module, ABC):
    """Reads ``<s> w1 … wn </s>``; a sentence's states do not depend on its neighbours.

    Attributes
    ----------
    output_dim : int
        H, of both directions together.
    """

    output_dim: int

    @abstractmethod
    def forward(self, batch: Batch) -> Encoded:
        """Read a batch of sentences."""

    @property
    def skips_padding(self) -> bool:
        """Whether sentences take no more time beside longer ones, as long as they are few."""
        return False


def last_state(states: Tensor, lengths: Tensor) -> Tensor:
    """Of states ``(B, T, H)`` the ones at the last real steps, ``(B, H)``."""
    last = (lengths - 1)[:, None, None]  # (B, 1, 1)
    return states.gather(1, last.expand(-1, 1, states.shape[-1])).squeeze(1)
