"""The softmax over the vocabulary: most of the work of a text VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# rows of logits alive at once in evaluation: larger ones leave the cache, smaller ones
# starve the matrix product
CHUNK = 512


def token_nll(features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(features · weightᵀ)[targets], ``(N,)``, for training.

    Parameters
    ----------
    features : Tensor
        ``(N, H)``: the decoder's states at real tokens only.
    weight : Tensor
        ``(V, H)``.
    targets : Tensor
        ``(N,)``.
    """
    device = features.device.type
    if torch.is_autocast_enabled(device):
        features = features.to(torch.get_autocast_dtype(device))
        weight = weight.to(features.dtype)
    with torch.autocast(device, enabled=False):
        if hasattr(F, "linear_cross_entropy"):
            return F.linear_cross_entropy(features, weight, targets, reduction="none")
        logits = F.linear(features, weight)  # (N, V)
        return F.cross_entropy(logits, targets, reduction="none")


class TokenLogLikelihood:
    """log softmax(features · weightᵀ)[target] without gradients, through one reused buffer.

    Logits of all rows together would not fit: 500 samples of a sentence of 80 words over
    20,000 words are 3 GB. Here they exist ``CHUNK`` rows at a time.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # (V, H)
        self.buffer = weight.new_empty(CHUNK, weight.shape[0])

    def __call__(self, features: Tensor, targets: Tensor) -> Tensor:
        """Score ``targets`` ``(N,)`` given ``features`` ``(N, H)``; nats, ``(N,)``."""
        pieces = []
        for rows, wanted in zip(features.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = self.buffer[: rows.shape[0]]
            torch.mm(rows, self.weight.t(), out=logits)  # (n, V)
            chosen = logits.gather(1, wanted[:, None]).squeeze(1).float()
            highest = logits.amax(1, keepdim=True)
            total = logits.sub_(highest).exp_().sum(1, dtype=torch.float32)
            pieces.append(chosen - highest.squeeze(1).float() - total.log())
        return torch.cat(pieces)
