"""Sums over the batches of all processes, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; what each adds, each gets its gradient for."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def over_processes(sums: Tensor) -> Tensor:
    """Add up over all processes; gradients flow back to each of them."""
    if distributed.is_available() and distributed.is_initialized():
        total = _AllReduce.apply(sums)
        assert isinstance(total, Tensor)
        return total
    return sums
