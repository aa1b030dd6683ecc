"""Rows of a table that are moved when somebody looks are where dense Adam would have them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy_support import (
    TYPES,
    Dense,
    learn,
    small_tables_too,  # noqa: F401 (a fixture)
    start,
    zipf,
)

from uncollapse.strategies import idle_steps, lazy_table
from uncollapse.strategies.idle_steps import FIRST_CAPACITY, NEGLIGIBLE, IdleSteps

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


@pytest.mark.usefixtures("ways")
def test_no_row_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waiting rows need stays bounded, and they end where dense Adam takes them."""
    monkeypatch.setattr(lazy_table, "LONGEST", 100)
    monkeypatch.setattr(idle_steps, "FIRST_CAPACITY", 64)
    table, optimizer = start()
    dense = Dense(table)
    for number, words in enumerate(zipf(900)):
        words = words if number % 350 == 7 else [min(word, 5) for word in words]
        for learner in (lambda *step: learn(table, optimizer, *step), dense.learn):
            learner(number, (words, 1e-2, 1e-3))
        (kept,) = optimizer.tables
        if kept.wakes():
            assert kept._idle.step - kept._oldest() <= 200
            assert len(kept._idle._origin) <= 1024
    assert dense.error(table) < 1.1 * NEGLIGIBLE
