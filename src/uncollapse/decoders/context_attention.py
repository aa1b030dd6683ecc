"""Attention of a decoder's states over the turns of a context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uncollapse.encoders.context import Condition


@dataclass
class Turns:
    """What N sentences can attend to: keys and values of U turns, and which turns there are."""

    keys: Tensor  # (N, U, H)
    values: Tensor  # (N, U, H)
    mask: Tensor  # (N, U)

    def select(self, rows: Tensor) -> Turns:
        """Keep some rows, by index or mask."""
        return Turns(self.keys[rows], self.values[rows], self.mask[rows])


class ContextAttention(nn.Module):
    """A weighted mean of the turns, the weights additive in state and turn.

    Added to the state that predicts; nothing where there is no turn.

    References
    ----------
    Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and
    Translate", appendix A.1.2; Luong et al. 2015, "Effective Approaches to Attention-based
    Neural Machine Translation", section 3.1 (attention after the recurrent step).

    Parameters
    ----------
    hidden_dim, memory_dim : int
        H and M.
    """

    def __init__(self, hidden_dim: int, memory_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key = nn.Linear(memory_dim, hidden_dim, bias=False)
        self.score = nn.Linear(hidden_dim, 1, bias=False)
        self.value = nn.Linear(memory_dim, hidden_dim, bias=False)

    def turns(self, condition: Condition) -> Turns:
        """Keys and values, once a context."""
        return Turns(self.key(condition.memory), self.value(condition.memory), condition.mask)

    def forward(self, states: Tensor, turns: Turns) -> Tensor:
        """What to add to states ``(N, T, H)``, ``(N, T, H)``."""
        if not turns.mask.shape[1]:
            return torch.zeros_like(states)
        mixed = self.query(states)[:, :, None] + turns.keys[:, None]  # (N, T, U, H)
        scores = self.score(mixed.tanh()).squeeze(-1)  # (N, T, U)
        # a finite number: a row without a turn would have no maximum
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~turns.mask[:, None], lowest).softmax(-1)
        return weights.masked_fill(~turns.mask[:, None], 0) @ turns.values
