from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.data.batches import Batch, BucketedBatches, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import BOS, EOS, PAD, Tokenizer
from uncollapse.errors import UserError

TOKENIZER = Tokenizer.train(["a b c d e"], "whitespace", None)
CLASSES = {"third": ["0", "1", "2"], "fifth": ["1", "2", "3", "4"]}


def corpus_of(lengths: list[int]) -> Corpus:
    texts = [" ".join("abcde"[(i + j) % 5] for j in range(n)) for i, n in enumerate(lengths)]
    numbers = range(len(texts))
    labels = {"third": [i % 3 for i in numbers], "fifth": [i % 5 or None for i in numbers]}
    return Corpus.from_texts(texts, TOKENIZER, labels=labels, classes=CLASSES)


def equal(a: Batch, b: Batch) -> bool:
    return a.total == b.total and torch.equal(a.tokens, b.tokens) and torch.equal(a.index, b.index)


def check_content(batch: Batch, corpus: Corpus) -> None:
    longest = 0
    for row, i in enumerate(batch.index.tolist()):
        words = corpus.sentence(i).tolist()
        n = len(words)
        expected = [BOS, *words, EOS] + [PAD] * (batch.tokens.shape[1] - n - 2)
        assert batch.tokens[row].tolist() == expected
        assert batch.lengths[row] == n + 2
        assert batch.mask[row].sum() == n + 2
        assert batch.target_mask[row].sum() == n + 1
        assert batch.labels["third"][row] == i % 3
        assert batch.labels["fifth"][row] == i % 5 - 1  # the labels 1 to 4; 0 has none
        longest = max(longest, n + 2)
    assert batch.tokens.shape[1] == longest
    tensors = (batch.tokens, batch.lengths, batch.index, *batch.labels.values())
    assert {part.dtype for part in tensors} == {torch.int64}


lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=120)
small = st.integers(1, 13)


@given(lengths_lists, small, st.integers(1, 5), st.integers(0, 3), small)
def test_an_epoch_has_every_sentence_once(
    lengths: list[int], batch_size: int, pool: int, epoch: int, start: int
) -> None:
    corpus = corpus_of(lengths)
    batches = BucketedBatches(corpus, batch_size, pool=pool, seed=7)
    whole = list(batches.epoch(epoch))
    assert len(whole) == len(batches) == -(-len(lengths) // batch_size)
    for batch in whole:
        check_content(batch, corpus)
        assert batch.total == batch.size
    rows = torch.cat([batch.index for batch in whole])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    tail = list(batches.epoch(epoch, start=start))
    assert len(tail) == max(len(whole) - start, 0)
    assert all(equal(a, b) for a, b in zip(whole[start:], tail, strict=True))


@given(lengths_lists, small, st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_ranks_share_the_global_batches(
    lengths: list[int], batch_size: int, pool: int, world: int, start: int
) -> None:
    corpus = corpus_of(lengths)
    if min(batch_size, len(lengths)) < world:
        with pytest.raises(UserError, match="processes cannot share"):
            BucketedBatches(corpus, batch_size, world=world)
        return
    ranks = [
        list(BucketedBatches(corpus, batch_size, pool=pool, rank=r, world=world).epoch(1, start))
        for r in range(world)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    together = []
    for parts in zip(*ranks, strict=True):
        assert {part.total for part in parts} == {sum(part.size for part in parts)}
        assert all(part.size >= 1 for part in parts)
        for part in parts:
            check_content(part, corpus)
        together.append([i for part in parts for i in part.index.tolist()])
    single = BucketedBatches(corpus, batch_size, pool=pool)
    alone = [batch.index.tolist() for batch in single.epoch(1, start)]
    if 0 < len(lengths) % batch_size < world:  # the last few rows joined another batch
        together_rows = sorted(i for rows in together for i in rows)
        if start == 0:
            assert together_rows == list(range(len(lengths)))
    else:
        assert [sorted(rows) for rows in together] == [sorted(rows) for rows in alone]


@given(lengths_lists, small, st.none() | st.integers(1, 60), st.integers(1, 4))
def test_evaluation_has_every_sentence_once(
    lengths: list[int], batch_size: int, max_tokens: int | None, world: int
) -> None:
    corpus = corpus_of(lengths)
    if min(batch_size, len(lengths)) < world:
        return
    ranks = [
        list(sequential_batches(corpus, batch_size, max_tokens=max_tokens, rank=r, world=world))
        for r in range(world)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    rows = [i for rank in ranks for batch in rank for i in batch.index.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    for rank in ranks:
        widths = [batch.tokens.shape[1] for batch in rank]
        assert widths == sorted(widths, reverse=True)
        for batch in rank:
            check_content(batch, corpus)
        for batch in rank[:-1]:
            assert batch.total <= batch_size
            if max_tokens is not None and batch.size > 1:
                assert batch.tokens.numel() <= max_tokens


def test_order_depends_on_seed_and_epoch_only() -> None:
    corpus = corpus_of([1 + i % 9 for i in range(200)])

    def rows(seed: int, epoch: int) -> list[int]:
        batches = BucketedBatches(corpus, 8, pool=5, seed=seed)
        list(batches.epoch(3))  # what was asked before does not matter
        return torch.cat([batch.index for batch in batches.epoch(epoch)]).tolist()

    assert rows(0, 0) == rows(0, 0)
    assert len({tuple(rows(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9


@pytest.mark.parametrize("pool", [1, 4, 100])
def test_any_batch_of_an_epoch_can_be_had_by_its_number(pool: int) -> None:
    corpus = corpus_of([1 + i % 9 for i in range(203)])
    for rank in range(2):
        batches = BucketedBatches(corpus, 8, pool=pool, seed=1, rank=rank, world=2)
        expected = [batch.index.tolist() for batch in batches.epoch(2)]
        found = [batches.batch(2, number) for number in reversed(range(len(batches)))]
        assert [batch.index.tolist() for batch in found] == expected[::-1]
        check_content(found[0], corpus)


def test_a_random_batch_is_a_function_of_its_key() -> None:
    corpus = corpus_of([1 + i % 9 for i in range(200)])

    def draws(seed: int, epoch: int, rank: int = 0) -> list[list[int]]:
        batches = BucketedBatches(corpus, 8, pool=5, seed=seed, rank=rank, world=2)
        running = batches.epoch(epoch)
        next(running)
        keys = [(batch, number) for batch in range(6) for number in range(2, 12)]
        found = {key: batches.random_batch(epoch, key) for key in reversed(keys)}
        next(running)  # the running epoch goes on undisturbed
        return [found[key].index.tolist() for key in keys]

    assert draws(0, 0) == draws(0, 0)
    assert len({str(draws(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    globally = [set(a + b) for a, b in zip(draws(0, 0), draws(0, 0, rank=1), strict=True)]
    epoch = [set(batch.index.tolist()) for batch in BucketedBatches(corpus, 8, pool=5).epoch(0)]
    assert all(rows in epoch for rows in globally)
    # 60 draws with replacement from 25 batches miss 2.2 of them on average
    assert 17 <= len({frozenset(rows) for rows in globally}) <= 25


def test_pools_pad_little_and_mixed_batches_are_mixed() -> None:
    random = np.random.default_rng(0)
    corpus = corpus_of(random.integers(1, 60, 2000).tolist())

    def padded(pool: int) -> float:
        batches = list(BucketedBatches(corpus, 16, pool=pool).epoch(0))
        real = sum(int(batch.mask.sum()) for batch in batches)
        return 1 - real / sum(batch.tokens.numel() for batch in batches)

    assert padded(100) < 0.03 < 0.3 < padded(1)


def test_batches_are_not_ordered_by_length() -> None:
    corpus = corpus_of([1 + i % 50 for i in range(1600)])
    widths = [batch.tokens.shape[1] for batch in BucketedBatches(corpus, 16).epoch(0)]
    assert widths != sorted(widths)


def test_skipped_batches_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from uncollapse.data import batches as module

    built = []
    assemble = module._assemble
    monkeypatch.setattr(module, "_assemble", lambda *a, **k: built.append(1) or assemble(*a, **k))
    batches = BucketedBatches(corpus_of([3] * 1000), 10, pool=7)
    list(batches.epoch(0, start=97))
    assert len(built) == 3


def test_properties_and_device() -> None:
    corpus = corpus_of([3, 1])
    (batch,) = BucketedBatches(corpus, 4).epoch(0)
    assert torch.equal(batch.inputs, batch.tokens[:, :-1])
    assert torch.equal(batch.targets, batch.tokens[:, 1:])
    moved = batch.to("meta")
    assert moved.tokens.is_meta
    assert list(moved.labels) == ["third", "fifth"]
    assert all(ids.is_meta for ids in moved.labels.values())
    assert moved.total == 2
    (unlabelled,) = sequential_batches(Corpus.from_texts(["a b"], TOKENIZER), 4)
    assert unlabelled.labels == unlabelled.to("cpu").labels == {}


def test_a_batch_repeated_is_itself_one_after_the_other() -> None:
    corpus = corpus_of([3, 1, 5])
    (batch,) = BucketedBatches(corpus, 4).epoch(0)
    thrice = batch.repeat(3)
    check_content(thrice, corpus)
    assert thrice.index.tolist() == 3 * batch.index.tolist()
    assert torch.equal(thrice.tokens, torch.cat(3 * [batch.tokens]))
    assert (thrice.size, thrice.total) == (9, 3)
    assert equal(batch.repeat(1), batch)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"pool": 0}, {"seed": -1}, {"rank": 2, "world": 2}, {"world": 4}],
)
def test_bad_settings(options: dict) -> None:
    with pytest.raises(UserError):
        BucketedBatches(corpus_of([1, 2, 3]), **{"batch_size": 3, **options})


def test_bad_max_tokens() -> None:
    with pytest.raises(UserError, match="max_tokens"):
        next(sequential_batches(corpus_of([1]), 1, max_tokens=0))
