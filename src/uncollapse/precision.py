"""The precision in which densities are computed, and that of matrix products under autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor in f32, or in what is finer: under autocast, states are bf16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def as_autocast(tensor: Tensor) -> Tensor:
    """The tensor in autocast's precision, if autocast is on."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor
