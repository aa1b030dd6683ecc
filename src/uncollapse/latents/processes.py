"""What a batch is when several processes share it; gradients flow through."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as F
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
    if _several():
        total = _AllReduce.apply(sums)
        assert isinstance(total, Tensor)
        return total
    return sums


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """Rows ``(B, D)`` of every process, one process after the other, the same in each."""
    if not _several():
        return rows
    rank = distributed.get_rank()
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[rank] = len(rows)
    distributed.all_reduce(counts)
    sizes = counts.tolist()
    # where another process has its rows, this one has zeros, which add nothing
    return over_processes(F.pad(rows, (0, 0, sum(sizes[:rank]), sum(sizes[rank + 1 :]))))


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
