"""From any real numbers to feasible ones, without steps and without overflow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# more than a network says on purpose, and far from what overflows float32
LARGE = 1e5
LARGEST = 1e6


def bounded(free: Tensor, inner: float, outer: float) -> Tensor:
    """The numbers themselves within ±inner; from there they level off towards ±outer.

    Twice differentiable, and increasing as far as the precision goes.
    """
    room = outer - inner
    beyond = inner + room * ((free.abs() - inner) / room).tanh()
    return torch.where(free.abs() <= inner, free, free.sign() * beyond)


def positive(free: Tensor, floor: float) -> Tensor:
    """Numbers from the floor to a million: a softplus, which is linear where it is large."""
    return floor + F.softplus(bounded(free, LARGE, LARGEST))
