"""Adam for some rows of a table: the steps that they were idle, and a step with a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uncollapse.strategies.idle_steps import Shares


def catch_up(p: Tensor, m: Tensor, v: Tensor, shares: Shares, epsilon: float) -> None:
    """Move rows ``(n, E)`` and their moments in place, by all steps that they were idle."""
    root = v.sqrt()
    below = (root * shares.mean).add_(epsilon)
    u = root / below
    scale = torch.addcmul(shares.second, u, shares.third)
    scale = torch.addcmul(shares.total, u.mul_(u), scale)
    p.addcmul_(m / below, scale, value=-1)
    if shares.terms:
        first, root = m[shares.exact], root[shares.exact]  # (r, E)
        moved = torch.zeros_like(first)
        for a, b in shares.terms:
            i = len(a)
            moved[:i] += (first[:i] * a).div_((root[:i] * b).add_(epsilon))
        p[shares.exact] -= moved
    m.mul_(shares.of_first)
    v.mul_(shares.of_second)


def update(
    p: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Tensor,
    step: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
) -> Tensor:
    """Rows ``(n, E)`` after step ``step`` of Adam; their moments are changed in place."""
    first, second = betas
    m.lerp_(gradient, 1 - first)
    v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    below = v.sqrt().div_(math.sqrt(1 - second**step)).add_(epsilon)
    return torch.addcdiv(p, m, below, value=-rate / (1 - first**step))
