"""Adam for some rows of a table: the steps that they were idle, and a step with a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uncollapse.native import Kernels, kernels_for
from uncollapse.native.kernels import Parts
from uncollapse.strategies.idle_steps import Shares


def kernels_of(parts: Parts) -> Kernels | None:
    """The kernels, if they can move rows of such a table."""
    return kernels_for(*parts) if parts[0].dtype == torch.float32 else None


def caught_up(parts: Parts, rows: Tensor, shares: Shares, epsilon: float) -> Parts:
    """Copies ``(n, E)`` of rows ``(n,)`` of a table and its moments, ``(V, E)`` each.

    They are moved by all steps that they were idle.
    """
    native = kernels_of(parts)
    if native is not None:
        return native.adam_catch_up(parts, rows, shares.arrays(), epsilon)
    p, m, v = (part.index_select(0, rows) for part in parts)
    total, mean, second, third, of_first, of_second = shares.columns[:, :, None].unbind()
    root = v.sqrt()
    below = (root * mean).add_(epsilon)
    u = root / below
    scale = torch.addcmul(second, u, third)
    scale = torch.addcmul(total, u.mul_(u), scale)
    p.addcmul_(m / below, scale, value=-1)
    exact, terms = shares.terms()
    if terms:
        first, root = m[exact], root[exact]  # (r, E)
        moved = torch.zeros_like(first)
        for a, b in terms:
            i = len(a)
            moved[:i] += (first[:i] * a).div_((root[:i] * b).add_(epsilon))
        p[exact] -= moved
    return p, m.mul_(of_first), v.mul_(of_second)


def update(
    found: Parts,
    gradient: Tensor,
    rows: Tensor,
    parts: Parts,
    step: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    factor: float = 1.0,
) -> None:
    """Step ``step`` of Adam of rows ``(n,)`` that were ``found``, ``(n, E)`` each.

    Into ``parts``, ``(V, E)`` each; ``factor`` scales the gradient.
    """
    first, second = betas
    rate, scale = rate / (1 - first**step), 1 / math.sqrt(1 - second**step)
    native = kernels_of(parts)
    if native is not None:
        numbers = (factor, 1 - first, second, 1 - second, rate, scale, epsilon)
        native.adam_update(found, gradient, rows, parts, *numbers)
        return
    p, m, v = found
    if factor != 1:
        gradient = gradient * factor
    m.lerp_(gradient, 1 - first)
    v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    p = torch.addcdiv(p, m, v.sqrt().mul_(scale).add_(epsilon), value=-rate)
    for part, result in zip(parts, (p, m, v), strict=True):
        part.index_copy_(0, rows, result)
