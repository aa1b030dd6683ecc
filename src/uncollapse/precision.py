"""The precision in which densities are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor in f32, or in what is finer: under autocast, states are bf16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
