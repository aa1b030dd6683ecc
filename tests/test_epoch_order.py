"""Which sentences make a batch of an epoch, where an epoch is not a pass over the corpus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.data import batches as batches_module
from uncollapse.data.batches import Batch, BucketedBatches
from uncollapse.data.corpus import Corpus
from uncollapse.data.permutation import random_order
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.training.state import RunState

TOKENIZER = Tokenizer.train(["a b c d e"], "whitespace", None)
SEED = 3


def rows_of(batches: list[Batch]) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


def state_at(epoch_batches: int, count: int, epoch: int, batch: int) -> RunState:
    return RunState(SEED, 1, epoch_batches, count, 1, epoch=epoch, batch=batch)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=25),
    batch_size=st.integers(2, 9),
    pool=st.integers(1, 4),
    epoch_batches=st.integers(1, 20),
    epochs=st.integers(1, 3),
    world=st.integers(1, 2),
)
def test_epochs_are_pieces_of_pass_after_pass(
    lengths: list[int], batch_size: int, pool: int, epoch_batches: int, epochs: int, world: int
) -> None:
    corpus = Corpus.from_texts([" ".join("a" * n) for n in lengths], TOKENIZER)
    for rank in range(world):
        batches = BucketedBatches(corpus, batch_size, pool=pool, seed=SEED, rank=rank, world=world)
        count, steps = len(batches), epoch_batches * epochs
        passes = rows_of([b for number in range(steps // count + 1) for b in batches.epoch(number)])
        found = []
        for epoch in range(epochs):
            state = state_at(epoch_batches, count, epoch, 0)
            own = rows_of(list(batches.onward(*state.place, epoch_batches)))
            assert len(own) == epoch_batches
            for batch in (1, epoch_batches // 2, epoch_batches):  # one that goes on from there
                state = state_at(epoch_batches, count, epoch, batch)
                rest = batches.onward(*state.place, epoch_batches - batch)
                assert rows_of(list(rest)) == own[batch:]
            found += own
        assert found == passes[:steps]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 200))
def test_places_follow_one_another(epoch_batches: int, count: int, step: int) -> None:
    epoch, batch = divmod(step, epoch_batches)
    number, place = state_at(epoch_batches, count, epoch, batch).place
    assert 0 <= place < count
    assert number * count + place == step
    # the batch after the last of an epoch is the first of the next
    last = state_at(epoch_batches, count, epoch, epoch_batches).place
    assert last == state_at(epoch_batches, count, epoch + 1, 0).place
    # where an epoch is a pass, it is what it always was
    assert state_at(count, count, *divmod(step, count)).place == divmod(step, count)


def test_a_pass_is_shuffled_once_however_many_epochs_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shuffled = []
    monkeypatch.setattr(
        batches_module, "random_order", lambda *a: shuffled.append(1) or random_order(*a)
    )
    batches = BucketedBatches(Corpus.from_texts(["a b"] * 40, TOKENIZER), 2, pool=3)
    for epoch in range(8):  # of 5 batches, and 20 a pass
        list(batches.onward(*state_at(5, len(batches), epoch, 0).place, 5))
    assert len(shuffled) == 2
