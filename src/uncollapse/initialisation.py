"""Uniform initialisation, as the papers' code does it."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, scale: float | None, embedding_scale: float | None) -> None:
    """Draw linear and recurrent weights from U(±scale), embeddings from U(±embedding_scale).

    ``None`` keeps PyTorch's own initialisation. Padding rows stay zero.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.RNNBase) and scale is not None:
                for parameter in part.parameters():
                    parameter.uniform_(-scale, scale)
            if isinstance(part, nn.Embedding) and embedding_scale is not None:
                part.weight.uniform_(-embedding_scale, embedding_scale)
                if part.padding_idx is not None:
                    part.weight[part.padding_idx].zero_()
