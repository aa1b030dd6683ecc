"""Rows of a table that are moved when somebody looks are where dense Adam would have them."""

from __future__ import annotations

import copy
import io
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam

from uncollapse.embedding import Embedding
from uncollapse.strategies import lazy_adam, lazy_table
from uncollapse.strategies.idle_steps import FIRST_CAPACITY, NEGLIGIBLE, IdleSteps
from uncollapse.strategies.lazy_adam import LazyAdam, keep_tables, let_go_of_tables
from uncollapse.strategies.row_sgd import RowSGD

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


WORDS = st.lists(st.integers(0, TYPES - 1), max_size=4)
RATES = st.sampled_from([1e-3, 3e-3, 1e-4, 0.1])
SCALES = st.sampled_from([1e-1, 1e-3, 1e-5, 1e-8])
# steps, then as many in which nobody looks a word up but one
STEPS = st.lists(
    st.tuples(WORDS, SCALES, RATES, st.sampled_from([0, 1, 5, 40, 90])), min_size=1, max_size=5
)


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_it_is_dense_adam(steps: list[tuple[list[int], float, float, int]]) -> None:
    table, optimizer = start()
    dense = Dense(table)
    number = 0
    for words, scale, rate, idle in steps:
        for step in [(words, scale, rate), *[([1], scale, rate)] * idle]:
            learn(table, optimizer, number, step)
            dense.learn(number, step)
            number += 1
    if bool((dense.way > 0).any()):
        assert dense.error(table) < 1.1 * NEGLIGIBLE


def zipf(steps: int, seed: int = 0) -> list[list[int]]:
    """Words of every step, of which the last types are rare."""
    generator = torch.Generator().manual_seed(seed)
    often = torch.arange(1, TYPES + 1).double() ** -3.0
    return [torch.multinomial(often, 4, True, generator=generator).tolist() for _ in range(steps)]


@pytest.mark.parametrize("scale", [1e-1, 1e-4, 1e-8])
def test_late_steps_are_dense_adams(scale: float) -> None:
    """Beyond the steps that there is room for at first, with a rate that changes."""
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(FIRST_CAPACITY + 200)):
        step = (words, scale, 1e-3 if number // 300 % 2 else 4e-3)
        learn(table, optimizer, number, step)
        dense.learn(number, step)
        if number % 199 == 0:
            assert dense.error(table) < 1.1 * NEGLIGIBLE


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("scale", [1e-1, 1e-4, 1e-8])
def test_in_f32_it_is_at_least_as_exact_as_dense_adam(scale: float) -> None:
    table, optimizer = start(torch.float32)
    plain, other = start(torch.float32, kept=False)
    dense = Dense(table)
    for number, words in enumerate(zipf(700)):
        step = (words, scale, 1e-3)
        learn(table, optimizer, number, step)
        learn(plain, other, number, step)
        dense.learn(number, step)
    exact = dense.table.weight.detach()
    off = (table.weight.detach() - exact).abs()
    assert off.max() <= (plain.weight.detach() - exact).abs().max()
    # of the way, and of rounding the weight itself at every step with a gradient
    assert bool((off <= 1e-6 * dense.way + 4e-7 * exact.abs() + 1e-9).all())


@pytest.mark.usefixtures("ways")
def test_an_idle_row_in_f32_moves_as_far_as_it_should() -> None:
    """From 0, where rounding the weight hides nothing."""
    for begun, idle in ((1, 60), (30, 20), (700, 1), (600, 400)):
        table, optimizer = start(torch.float32)
        with torch.no_grad():
            table.weight.zero_()
        dense = Dense(table)
        for number in range(begun + idle):
            words = [5] if number == begun - 1 else [1]
            for learner in (
                lambda n, s: learn(table, optimizer, n, s),  # noqa: B023
                dense.learn,
            ):
                learner(number, (words, 1e-2, 1e-3))
        assert dense.error(table) < 1e-6 or dense.error(table) * dense.way[5].max() < 1e-9


def test_after_the_dense_steps_no_sum_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    first = lazy_table.DENSE_STEPS
    idle = IdleSteps((0.9, 0.999), first)
    for _ in range(400):
        idle.advance(1e-3, lambda: first)
        shares = idle.shares(torch.arange(first, idle.step), torch.float32)
        assert not shares.last.any()


def test_a_rate_of_zero_moves_nothing() -> None:
    table, optimizer = start()
    dense = Dense(table)
    for number, rate in enumerate([0.0] * 5 + [1e-3] * 5 + [0.0] * 300 + [1e-3] * 300):
        step = ([2] if number in (2, 7) else [1], 1.0, rate)
        learn(table, optimizer, number, step)
        dense.learn(number, step)
    assert dense.error(table) < 1.1 * NEGLIGIBLE


@pytest.mark.parametrize("shown", [False, True])
def test_a_cleared_optimiser_starts_anew_from_where_it_was(shown: bool) -> None:
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(90)):
        if number in (20, 60):
            if shown:
                table.state_dict()
            optimizer.state.clear()
            dense.optimizer.state.clear()
        learn(table, optimizer, number, (words, 1e-2, 1e-3))
        dense.learn(number, (words, 1e-2, 1e-3))
    assert dense.error(table) < 1.1 * NEGLIGIBLE


def test_gradients_of_several_passes_and_dense_ones() -> None:
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(60)):
        for learner, embedding in ((optimizer, table), (dense.optimizer, dense.table)):
            learner.zero_grad()
            if number % 7 == 3:  # nobody learns, and no step is counted
                learner.step()
                continue
            first = embedding(torch.tensor(words)).square().sum()
            loss = first + embedding(torch.tensor([[3, 3], words[:2]])).exp().sum()
            if number % 5 == 4:
                loss = loss + (embedding.weight**3).sum()
            before = dense.table.weight.detach().clone()
            loss.backward()
            learner.step()
            dense.way += (dense.table.weight.detach() - before).abs()
    assert dense.error(table) < 1e-6


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
def test_going_on_from_a_checkpoint_is_bit_for_bit(at: int) -> None:
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


def test_kernels_need_no_dense_steps(used: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_table, "DENSE_STEPS", 700)
    table, optimizer = start(torch.float32)
    dense = Dense(table)
    for number, words in enumerate(zipf(60)):
        learn(table, optimizer, number, (words, 1e-2, 1e-3))
        dense.learn(number, (words, 1e-2, 1e-3))
    assert used["adam_update"] == 59
    off = (table.weight.detach() - dense.table.weight.detach()).abs()
    assert bool((off <= 1e-6 * dense.way + 1e-7).all())


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
