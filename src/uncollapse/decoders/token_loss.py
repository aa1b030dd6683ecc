"""The softmax over the vocabulary in training: most of the work of a text VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from uncollapse.decoders.vocabulary import VocabularyRows, softmax_
from uncollapse.native import kernels_for
from uncollapse.precision import as_autocast
from uncollapse.tuning import MULTIPLE, in_multiples

# logits alive at once: 256 MB in f32; a batch that has more goes through in parts
ALIVE = 1 << 26
# rows of bf16 logits that are widened to f32 at once, in cache
WIDENED = 64


def token_nll(features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(features · weightᵀ)[targets], ``(N,)``, for training; nats, at least f32.

    Under autocast the three matrix products are in its precision and the softmax in f32, so
    that losses carry the rounding of the logits alone. Memory is bounded whatever N · V is.

    Parameters
    ----------
    features : Tensor
        ``(N, H)``: the decoder's states at real tokens only.
    weight : Tensor
        ``(V, H)``.
    targets : Tensor
        ``(N,)``.
    """
    if not torch.is_grad_enabled():
        return -VocabularyRows(weight).log_likelihood(features, targets)
    features, weight = as_autocast(features), as_autocast(weight)
    with torch.autocast(features.device.type, enabled=False):
        nll = _TokenNLL.apply(features, weight, targets)
    assert isinstance(nll, Tensor)
    return nll


class _TokenNLL(torch.autograd.Function):
    """Keeps one array of logits for the backward pass, where eager PyTorch keeps three.

    The gradient with respect to the logits, softmax − one-hot, replaces them in the forward
    pass. What arrives from above scales its rows, hence equally the rows of the two narrow
    factors that it is multiplied with.

    Where there are too many logits to keep, the two products are taken in the forward pass, part
    by part, as if every token weighed the same; where that turns out wrong, they are taken
    again.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.parts = _parts(len(features), len(weight))
        if len(ctx.parts) == 1:
            padded = in_multiples(features)
            nll, logits = _gradient_of_logits(padded, weight, targets)
            ctx.save_for_backward(padded, weight, logits)
            return nll
        nll, of_features, of_weight = _products(features, weight, targets, ctx.parts)
        ctx.save_for_backward(features, weight, targets, of_features, of_weight)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        if len(ctx.parts) > 1:
            features, weight, targets, of_features, of_weight = ctx.saved_tensors
            if (gradient == gradient[0]).all():
                return of_features * gradient[0], (of_weight * gradient[0]).to(weight.dtype), None
            _, *products = _products(features, weight, targets, ctx.parts, gradient)
            return products[0], products[1].to(weight.dtype), None
        features, weight, logits = ctx.saved_tensors
        scale = in_multiples(gradient[:, None])  # (N, 1)
        of_features = torch.mm(logits, weight)[: len(gradient)].mul_(gradient[:, None])  # (N, H)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = torch.mm(logits.t(), (features * scale).to(features.dtype))  # (V, H)
        return of_features, of_weight, None


def _parts(rows: int, width: int) -> list[slice]:
    """Rows that go through together."""
    most = max(MULTIPLE, ALIVE // width // MULTIPLE * MULTIPLE)
    return [slice(first, first + most) for first in range(0, max(rows, 1), most)]


def _products(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    parts: list[slice],
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses ``(N,)``, and the gradients of features ``(N, H)`` and weight ``(V, H)``, f32.

    ``scale`` ``(N,)`` weighs the rows; without it all weigh 1.
    """
    losses, of_features = [], torch.empty_like(features)
    of_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    for part in parts:
        padded = in_multiples(features[part])
        nll, logits = _gradient_of_logits(padded, weight, targets[part])
        product = torch.mm(logits, weight)[: len(nll)]
        if scale is not None:
            product *= scale[part, None]
            padded = (padded * in_multiples(scale[part, None])).to(padded.dtype)
        of_features[part] = product
        of_weight += torch.mm(logits.t(), padded)
        losses.append(nll)
    return torch.cat(losses), of_features, of_weight


def _gradient_of_logits(padded: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses ``(N,)``, and softmax − one-hot ``(N + padding, V)``, zeros in the padding."""
    rows = len(targets)
    logits = torch.mm(padded, weight.t())
    logits[rows:] = 0
    own, native = logits[:rows], kernels_for(logits)
    if native is not None:
        return native.softmax_gradient_(own, targets), logits
    nll = (_narrow_softmax_ if logits.dtype.itemsize < 4 else softmax_)(own, targets)
    wanted = torch.expm1(-nll).to(logits.dtype)  # p − 1, without cancellation at p ≈ 1
    own.scatter_(1, targets[:, None], wanted[:, None])
    return nll, logits


def _narrow_softmax_(logits: Tensor, targets: Tensor) -> Tensor:
    """`softmax_` for bf16 or f16 logits: computed in f32, a few rows at a time."""
    buffer = logits.new_empty(min(WIDENED, len(logits)), logits.shape[1], dtype=torch.float32)
    pieces = []
    for rows, wanted in zip(logits.split(WIDENED), targets.split(WIDENED), strict=True):
        wide = buffer[: len(rows)].copy_(rows)
        pieces.append(softmax_(wide, wanted))
        rows.copy_(wide)
    return torch.cat(pieces)
