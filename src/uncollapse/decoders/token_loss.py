"""The softmax over the vocabulary: most of the work of a text VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# rows of logits alive at once in evaluation: more of them leave the cache, fewer starve the
# matrix product
CHUNK = 256
# rows of bf16 logits that are widened to f32 at once, in cache
WIDENED = 64


def token_nll(features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(features · weightᵀ)[targets], ``(N,)``, for training; nats, at least f32.

    Under autocast the three matrix products are in its precision and the softmax in f32, so
    that losses carry the rounding of the logits alone.

    Parameters
    ----------
    features : Tensor
        ``(N, H)``: the decoder's states at real tokens only.
    weight : Tensor
        ``(V, H)``.
    targets : Tensor
        ``(N,)``.
    """
    features, weight = as_autocast(features), as_autocast(weight)
    with torch.autocast(features.device.type, enabled=False):
        nll = _TokenNLL.apply(features, weight, targets)
    assert isinstance(nll, Tensor)
    return nll


class _TokenNLL(torch.autograd.Function):
    """Keeps one ``(N, V)`` array for the backward pass, where eager PyTorch keeps three.

    The gradient with respect to the logits, softmax − one-hot, replaces them in the forward
    pass. What arrives from above scales its rows, hence equally the rows of the two narrow
    factors that it is multiplied with.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        logits = torch.mm(features, weight.t())  # (N, V)
        nll = (_narrow_softmax_ if logits.dtype.itemsize < 4 else _softmax_)(logits, targets)
        wanted = torch.expm1(-nll).to(logits.dtype)  # p − 1, without cancellation at p ≈ 1
        logits.scatter_(1, targets[:, None], wanted[:, None])
        ctx.save_for_backward(features, weight, logits)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        features, weight, logits = ctx.saved_tensors
        scale = gradient[:, None]  # (N, 1)
        of_features = torch.mm(logits, weight).mul_(scale)  # (N, H)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = torch.mm(logits.t(), (features * scale).to(features.dtype))  # (V, H)
        return of_features, of_weight, None


class TokenLogLikelihood:
    """log softmax(features · weightᵀ)[target] without gradients, through one reused buffer.

    Logits of all rows together would not fit: 500 samples of a sentence of 80 words over
    20,000 words are 3 GB. Here they exist ``CHUNK`` rows at a time. Built under autocast, it
    multiplies in that precision; all else is f32 still.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = as_autocast(weight)  # (V, H)
        self.buffer = new_logits(self.weight, CHUNK, len(weight))

    def __call__(self, features: Tensor, targets: Tensor) -> Tensor:
        """Score ``targets`` ``(N,)`` given ``features`` ``(N, H)``; nats, ``(N,)``."""
        pieces = []
        for rows, wanted in zip(features.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = self.buffer[: rows.shape[0]]
            write_logits(rows, self.weight, logits)  # (n, V)
            pieces.append(-_softmax_(logits, wanted))
        return torch.cat(pieces)


def as_autocast(tensor: Tensor) -> Tensor:
    """The tensor in autocast's precision, if autocast is on."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


def new_logits(weight: Tensor, rows: int, width: int) -> Tensor:
    """A buffer for logits ``(rows, width)``, f32 or what is finer."""
    return weight.new_empty(rows, width, dtype=torch.promote_types(weight.dtype, torch.float32))


def write_logits(features: Tensor, weight: Tensor, logits: Tensor) -> None:
    """Write features · weightᵀ, multiplied in the weight's precision, to ``logits`` ``(N, V)``."""
    if weight.dtype == logits.dtype:
        torch.mm(features, weight.t(), out=logits)
    else:
        logits.copy_(torch.mm(features.to(weight.dtype), weight.t()))


def _softmax_(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits ``(N, V)`` into probabilities in place; return −log p(target), ``(N,)``."""
    highest = logits.amax(1)
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    torch.softmax(logits, 1, out=logits)
    # the target's probability may underflow; the greatest one is 1 / Σ exp(logit − highest)
    return highest - chosen - logits.amax(1).log()


def _narrow_softmax_(logits: Tensor, targets: Tensor) -> Tensor:
    """The same for bf16 or f16 logits: computed in f32, a few rows at a time."""
    buffer = new_logits(logits, min(WIDENED, len(logits)), logits.shape[1])
    pieces = []
    for rows, wanted in zip(logits.split(WIDENED), targets.split(WIDENED), strict=True):
        wide = buffer[: len(rows)].copy_(rows)
        pieces.append(_softmax_(wide, wanted))
        rows.copy_(wide)
    return torch.cat(pieces)
