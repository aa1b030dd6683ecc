"""Readouts: from the encoder's states to the features that a posterior reads.

References
----------
Long et al. 2019, "Preventing Posterior Collapse in Sequence VAEs with Pooling" (mean, max
and sign-preserving absolute pooling); Li et al. 2020, TWR-VAE (a feature at every step).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uncollapse.encoders import Encoded
from uncollapse.precision import widened

Readout = Callable[[Encoded], Tensor]


def last(encoded: Encoded) -> Tensor:
    """The state after the whole sentence, ``(B, H)``."""
    return encoded.summary


def mean(encoded: Encoded) -> Tensor:
    """Mean over real steps, ``(B, H)``."""
    mask = encoded.mask[:, :, None]  # (B, T, 1)
    return widened(encoded.states).masked_fill(~mask, 0).sum(1) / mask.sum(1)


def max_pool(encoded: Encoded) -> Tensor:
    """Maximum over real steps, ``(B, H)``."""
    return encoded.states.masked_fill(~encoded.mask[:, :, None], -torch.inf).amax(1)


def abs_pool(encoded: Encoded) -> Tensor:
    """Per dimension the state of largest magnitude over real steps, sign kept, ``(B, H)``."""
    magnitude = encoded.states.abs().masked_fill(~encoded.mask[:, :, None], -1)
    return encoded.states.gather(1, magnitude.argmax(1, keepdim=True)).squeeze(1)


def every(encoded: Encoded) -> Tensor:
    """All states, ``(B, T, H)``: a posterior at every step."""
    return encoded.states


KINDS: dict[str, Readout] = {
    "last": last,
    "mean": mean,
    "max": max_pool,
    "abs": abs_pool,
    "every": every,
}
