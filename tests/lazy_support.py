"""A small table whose rows are moved when somebody looks, and dense Adam beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.optim import Adam

from uncollapse.embedding import Embedding
from uncollapse.strategies import lazy_adam, lazy_table
from uncollapse.strategies.lazy_adam import LazyAdam, keep_tables

TYPES, WIDTH = 12, 4
Step = tuple[Sequence[int], float, float]  # words that are looked up, scale of gradients, rate


@pytest.fixture(autouse=True)
def small_tables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_adam, "SMALLEST", 0)
    monkeypatch.setattr(lazy_table, "DENSE_STEPS", 1)


def start(
    dtype: torch.dtype = torch.float64, *, kept: bool = True, epsilon: float = 1e-8
) -> tuple[Embedding, LazyAdam]:
    """A table, the same every time, and its optimiser."""
    table = Embedding(TYPES, WIDTH, padding_idx=0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        table.weight.copy_(0.1 * torch.randn(TYPES, WIDTH, generator=generator))
    table.to(dtype)
    optimizer = LazyAdam(table.parameters(), 1e-3, eps=epsilon, fused=True)
    if kept:
        keep_tables(table, [optimizer])
        assert len(optimizer.tables) == 1
    return table, optimizer


def learn(table: Embedding, optimizer: Adam, number: int, step: Step) -> None:
    """A step whose gradient is a function of its number."""
    words, scale, rate = step
    for group in optimizer.param_groups:
        group["lr"] = rate
    generator = torch.Generator().manual_seed(number)
    arriving = scale * torch.randn(len(words), WIDTH, generator=generator, dtype=torch.float64)
    optimizer.zero_grad()
    found = table(torch.tensor(words, dtype=torch.long))
    found.backward(arriving.to(found.dtype))
    optimizer.step()


class Dense:
    """Adam as PyTorch has it, in float64, and how far it has moved every weight in all."""

    def __init__(self, table: Embedding) -> None:
        self.table = nn.Embedding(TYPES, WIDTH, padding_idx=0)
        self.table.to(torch.float64).load_state_dict(table.state_dict())
        self.optimizer = Adam(self.table.parameters(), 1e-3)
        self.way = torch.zeros(TYPES, WIDTH, dtype=torch.float64)

    def learn(self, number: int, step: Step) -> None:
        before = self.table.weight.detach().clone()
        learn(self.table, self.optimizer, number, step)  # type: ignore[arg-type]
        self.way += (self.table.weight.detach() - before).abs()

    def error(self, table: Embedding) -> float:
        """Greatest error as a share of the way that dense Adam went."""
        off = (table.weight.detach() - self.table.weight.detach()).abs()
        assert bool((off[self.way == 0] == 0).all())
        return float((off / self.way)[self.way > 0].max())


def zipf(steps: int, seed: int = 0) -> list[list[int]]:
    """Words of every step, of which the last types are rare."""
    generator = torch.Generator().manual_seed(seed)
    often = torch.arange(1, TYPES + 1).double() ** -3.0
    return [torch.multinomial(often, 4, True, generator=generator).tolist() for _ in range(steps)]
