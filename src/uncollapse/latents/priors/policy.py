"""p(c|context): the probabilities of the values of discrete variables, given a dialogue."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from uncollapse.config import PolicyConfig
from uncollapse.encoders.context import Condition
from uncollapse.precision import widened


class Policy(nn.Module):
    """M distributions over K values, read from the context; uniform where there is none.

    Parameters
    ----------
    config : PolicyConfig
    condition_dim : int
        C.
    size : tuple of int
        M and K.
    """

    def __init__(self, config: PolicyConfig, condition_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        groups, values = size
        self.network = nn.Sequential(
            nn.Linear(condition_dim, config.hidden_dim),
            nn.Tanh(),
            nn.Linear(config.hidden_dim, groups * values),
        )

    def forward(self, condition: Condition) -> Tensor:
        """Log-probabilities ``(B, M, K)``, nats."""
        with torch.autocast(condition.vector.device.type, enabled=False):
            logits = self.network(widened(condition.vector)).unflatten(-1, self.size)
            found = logits.log_softmax(-1)
        absent = ~condition.present[:, None, None]
        return found.masked_fill(absent, -math.log(self.size[1]))
