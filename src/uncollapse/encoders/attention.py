"""Transformer blocks that know positions by rotation, and so have no longest sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from uncollapse.data.tokenizer import PAD
from uncollapse.dropout import Dropout
from uncollapse.native import kernels_for
from uncollapse.precision import widened

SLOWEST = 10_000.0  # steps by which the slowest pair of channels turns one radian
STANDARD_DEVIATION = 0.02  # of initial weights
SHORT = 128  # positions up to which weights of all pairs fit into the caches

Turn = tuple[Tensor, Tensor]  # cosines and sines of the angles of positions
# (layer, queries, keys and values (B, T, 3, heads, width), turn) to what queries see,
# (B, T, heads, width)
Attend = Callable[[int, Tensor, Turn], Tensor]


class Transformer(nn.Module):
    """Pre-norm blocks, and a norm above them; weights start as in GPT-2.

    A width that the heads do not divide into pairs of channels is rounded up inside the
    attention: every width works.

    Attributes
    ----------
    shape : tuple of int
        Layers, heads, and the width of one head.

    References
    ----------
    Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019 (GPT-2); Su et al.
    2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding".
    """

    def __init__(self, hidden_dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        width = 2 * math.ceil(hidden_dim / (2 * heads))  # of one head
        self.shape = (layers, heads, width)
        blocks = [Block(hidden_dim, heads, width, dropout) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(hidden_dim)
        for block in blocks:
            block.initialise(layers)

    def forward(self, states: Tensor, attend: Attend, positions: Tensor | None = None) -> Tensor:
        """States ``(B, T, H)`` of positions ``(B, T)``, by default 0, 1, …, ``(B, T, H)``."""
        if positions is None:
            positions = torch.arange(states.shape[1], device=states.device)[None]
        turn = rotation(positions[:, None], self.shape[2], states)
        for layer, block in enumerate(self.blocks):
            states = block(states, turn, layer, attend)
        return self.norm(states)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, hidden_dim: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.split = nn.Linear(hidden_dim, 3 * heads * width)
        self.merge = nn.Linear(heads * width, hidden_dim)
        self.mlp_norm = nn.LayerNorm(hidden_dim)
        self.widen = nn.Linear(hidden_dim, 4 * hidden_dim)
        self.narrow = nn.Linear(4 * hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)

    def initialise(self, layers: int) -> None:
        """Small weights, and smaller ones where ``2 · layers`` parts add up."""
        for part in (self.split, self.merge, self.widen, self.narrow):
            adds = part in (self.merge, self.narrow)
            nn.init.normal_(part.weight, std=STANDARD_DEVIATION / (2 * layers) ** (0.5 * adds))
            nn.init.zeros_(part.bias)

    def forward(self, states: Tensor, turn: Turn, layer: int, attend: Attend) -> Tensor:
        """Pass states ``(B, T, H)`` on, ``(B, T, H)``."""
        parts = self.split(self.attention_norm(states))  # (B, T, 3 · heads · width)
        seen = attend(layer, parts.unflatten(-1, (3, self.heads, -1)), turn)
        merged = self.merge(seen.flatten(2))  # (B, T, H)
        states = states + self.dropout(merged)
        wide = nn.functional.gelu(self.widen(self.mlp_norm(states)))  # (B, T, 4H)
        return states + self.dropout(self.narrow(wide))


def look(parts: Tensor, turn: Turn, visible: Tensor | None = None) -> Tensor:
    """What positions see of one another, ``(B, T, heads, width)``.

    ``parts`` ``(B, T, 3, heads, width)`` are their queries, keys and values. Each sees what is
    ``visible`` ``(B, T)``, or by default itself and those before it; ``turn`` is that of positions
    which all sentences share.
    """
    fused = kernels_for(parts, *turn)
    if fused is not None and parts.shape[1] <= SHORT and turn[0].dtype == torch.float32:
        seen = _Look.apply(parts, *(own.flatten(0, -2) for own in turn), visible)
        assert isinstance(seen, Tensor)
        return seen
    mask = None if visible is None else visible[:, None, None]  # for all heads and queries
    return see(*split_heads(parts, turn), mask)


class _Look(torch.autograd.Function):
    """Turns, scores and weights never leave the caches; they are computed again backward."""

    @staticmethod
    def forward(
        ctx: Any, parts: Tensor, cosine: Tensor, sine: Tensor, visible: Tensor | None
    ) -> Tensor:
        fused = kernels_for(parts)
        assert fused is not None
        parts = parts.contiguous()
        ctx.save_for_backward(parts, cosine, sine, visible)
        return fused.attention_forward(parts, (cosine, sine), visible)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        parts, cosine, sine, visible = ctx.saved_tensors
        fused = kernels_for(parts)
        assert fused is not None
        return fused.attention_backward(parts, (cosine, sine), visible, gradient), None, None, None


def split_heads(parts: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned, and values, ``(B, heads, T, width)`` each.

    Of ``(B, T, 3, heads, width)``.
    """
    queries, keys, values = parts.permute(2, 0, 3, 1, 4)
    return rotate(queries, turn), rotate(keys, turn), values


def see(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """What queries ``(B, heads, T, width)`` see, ``(B, T, heads, width)``.

    That is the positions ``visible`` ``(B, 1, 1, T)``, or by default those up to their own.
    """
    steps = queries.shape[2]
    if queries.device.type == "cpu" and steps <= SHORT:
        # PyTorch's fused attention takes up to ten times as long
        scores = (queries * queries.shape[3] ** -0.5) @ keys.transpose(2, 3)
        if visible is None:
            visible = torch.ones(steps, steps, dtype=torch.bool).tril()
        weights = widened(scores).masked_fill(~visible, -torch.inf).softmax(3)
        seen = weights.to(values.dtype) @ values
    else:
        causal = visible is None
        seen = F.scaled_dot_product_attention(queries, keys, values, visible, is_causal=causal)
    return seen.transpose(1, 2)


def rotation(positions: Tensor, width: int, like: Tensor) -> Turn:
    """Cosines and sines of the angles of positions ``(...)``, ``(..., width / 2)`` each."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(0, width, 2, device=like.device, dtype=dtype)
    angles = positions.to(dtype)[..., None] * SLOWEST ** (-pairs / width)  # (..., width / 2)
    return angles.cos(), angles.sin()


def rotate(vectors: Tensor, turn: Turn) -> Tensor:
    """Turn pairs of channels of ``(..., T, width)`` by the angles of their positions."""
    cosine, sine = turn
    one, other = vectors.chunk(2, -1)  # (..., T, width / 2)
    turned = torch.cat([one * cosine - other * sine, one * sine + other * cosine], -1)
    return turned.to(vectors.dtype)


def initialise_embedding(embedding: nn.Embedding) -> None:
    """Small vectors, so that a tied softmax starts near the uniform distribution."""
    with torch.no_grad():
        embedding.weight.normal_(std=STANDARD_DEVIATION)[PAD].zero_()
