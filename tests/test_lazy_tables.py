"""Tables whose rows are moved when somebody looks: who reads, writes, keeps and saves them."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from lazy_support import (
    TYPES,
    WIDTH,
    Dense,
    learn,
    small_tables_too,  # noqa: F401 (a fixture)
    start,
    zipf,
)
from torch import Tensor, nn
from torch.optim import SGD

from uncollapse.embedding import Embedding
from uncollapse.strategies import lazy_table
from uncollapse.strategies.idle_steps import NEGLIGIBLE
from uncollapse.strategies.lazy_adam import LazyAdam, keep_tables, let_go_of_tables
from uncollapse.strategies.row_sgd import RowSGD

READERS: list[Callable[[Embedding], Tensor]] = [
    lambda table: table.weight,
    lambda table: next(nn.Sequential(table).parameters()),
    lambda table: nn.Sequential(table).state_dict()["0.weight"],
    lambda table: nn.ModuleList([table]).get_parameter("0.weight"),
    lambda table: copy.deepcopy(table).weight,
    lambda table: copy.deepcopy(table.eval()).train()(torch.arange(TYPES)),
    lambda table: table.eval()(torch.arange(TYPES)),
    lambda table: table(torch.arange(TYPES)),
    lambda table: table.types(torch.arange(TYPES))[0],
]


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("reader", range(len(READERS)))
def test_whoever_reads_sees_all_steps_and_changes_nothing(reader: int) -> None:
    read = READERS[reader]
    table, optimizer = start(torch.float32)
    twin, other = start(torch.float32)
    plain, dense = start(torch.float32, kept=False)
    for number, words in enumerate(zipf(80)):
        step = (words, 1e-2, 1e-3)
        learn(table, optimizer, number, step)
        learn(twin, other, number, step)
        learn(plain, dense, number, step)
        if number % 3 == 0:
            torch.testing.assert_close(read(table), plain.weight, rtol=1e-5, atol=1e-7)
            table.train()
    assert torch.equal(table.weight, twin.weight)


def test_a_table_that_was_shown_stays_so_until_the_next_update() -> None:
    table, optimizer = start(torch.float32)
    for number, words in enumerate(zipf(60)):
        learn(table, optimizer, number, (words, 1e-2, 1e-3))
    held = table.weight
    before = held.detach().clone()
    table(torch.arange(TYPES))
    assert torch.equal(held, before)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_written_is_what_training_goes_on_from(fresh: bool) -> None:
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(90)):
        if number == 40:
            weights = {"weight": torch.full((TYPES, WIDTH), 0.3, dtype=torch.float64)}
            for module in (table, dense.table):
                with torch.no_grad():
                    module.weight[[2, 9]] = 1.0  # type: ignore[index]
                if fresh:
                    module.load_state_dict(weights)
        learn(table, optimizer, number, (words, 1e-2, 1e-3))
        dense.learn(number, (words, 1e-2, 1e-3))
    assert dense.error(table) < 1.1 * NEGLIGIBLE


def saved(table: Embedding, optimizer: LazyAdam) -> dict:
    file = io.BytesIO()
    torch.save({"model": table.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("at", [1, 57, 1100])
def test_going_on_from_a_checkpoint_is_bit_for_bit(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_table, "LONGEST", 40)
    words = zipf(at + 60)
    table, optimizer = start(torch.float32)
    part, first = start(torch.float32)
    for number in range(at):
        for pair in ((table, optimizer), (part, first)):
            learn(*pair, number, (words[number], 1e-2, 1e-3 if number < at // 2 else 1e-4))
    payload = saved(part, first)
    again, second = start(torch.float32)
    again.load_state_dict(payload["model"])
    second.load_state_dict(payload["optimizer"])
    for number in range(at, at + 60):
        for pair in ((table, optimizer), (again, second)):
            learn(*pair, number, (words[number], 1e-2, 1e-4))
    assert torch.equal(table.weight, again.weight)
    ours, theirs = saved(table, optimizer), saved(again, second)
    for name, value in ours["optimizer"]["state"][0].items():
        other = theirs["optimizer"]["state"][0][name]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other


@pytest.mark.parametrize("kept", [(True, False), (False, True)])
def test_a_checkpoint_serves_whoever_keeps_tables_or_not(kept: tuple[bool, bool]) -> None:
    words = zipf(100)
    table, optimizer = start(kept=kept[0])
    dense = Dense(table)
    for number in range(50):
        learn(table, optimizer, number, (words[number], 1e-2, 1e-3))
        dense.learn(number, (words[number], 1e-2, 1e-3))
    payload = saved(table, optimizer)
    table, optimizer = start(kept=kept[1])
    table.load_state_dict(payload["model"])
    optimizer.load_state_dict(payload["optimizer"])
    for number in range(50, 100):
        learn(table, optimizer, number, (words[number], 1e-2, 1e-3))
        dense.learn(number, (words[number], 1e-2, 1e-3))
    assert dense.error(table) < 1.1 * NEGLIGIBLE


def test_when_it_is_let_go_dense_adam_goes_on() -> None:
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(100)):
        if number == 50:
            let_go_of_tables([optimizer])
            assert type(table._parameters) is dict
        learn(table, optimizer, number, (words, 1e-2, 1e-3))
        dense.learn(number, (words, 1e-2, 1e-3))
    assert dense.error(table) < 1.1 * NEGLIGIBLE


def test_sgd_keeps_tables_too() -> None:
    """A step is dense SGD's, and reads nothing of the rows without a gradient."""
    table = Embedding(TYPES, WIDTH, padding_idx=0)
    plain = copy.deepcopy(table)
    optimizer = RowSGD(table.parameters(), 0.5)
    keep_tables(table, [optimizer])
    other = SGD(plain.parameters(), 0.5)
    for number, words in enumerate(zipf(20)):
        learn(table, optimizer, number, (words, 1.0, 0.5))  # type: ignore[arg-type]
        gradient = table._parameters.raw("weight").grad  # type: ignore[attr-defined]
        assert gradient.is_sparse
        assert len(gradient._values()) == len(set(words) - {0})
        learn(plain, other, number, (words, 1.0, 0.5))  # type: ignore[arg-type]
        torch.testing.assert_close(table.weight, plain.weight)
    let_go_of_tables([optimizer])
    assert type(table._parameters) is dict


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding(TYPES, WIDTH, padding_idx=0)
        self.output = nn.Linear(WIDTH, TYPES, bias=False)
        self.output.weight = self.embedding.weight


def test_only_tables_that_nobody_shares_and_that_are_large_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kept(model: nn.Module, **settings: float) -> int:
        optimizer = LazyAdam(model.parameters(), 1e-3, **settings)
        keep_tables(model, [optimizer])
        return len(optimizer.tables)

    table = Embedding(TYPES, WIDTH, padding_idx=0)
    assert kept(table) == 1
    assert kept(nn.Sequential(table, nn.ModuleList([table]))) == 1  # the same module
    assert kept(table, weight_decay=0.1) == 0
    assert kept(Tied()) == 0
    assert kept(nn.Embedding(TYPES, WIDTH)) == 0
    monkeypatch.undo()
    assert kept(table) == 0
