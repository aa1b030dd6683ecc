"""Large corpora: what is computed on demand, kept on disk, or not done twice."""

from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.config import DataConfig
from uncollapse.data import batches as batches_module
from uncollapse.data import cache as cache_module
from uncollapse.data import corpus as corpus_module
from uncollapse.data import known as known_module
from uncollapse.data import permutation as permutation_module
from uncollapse.data import vocabularies as vocabularies_module
from uncollapse.data.batches import BucketedBatches, sequential_batches
from uncollapse.data.corpus import Corpus, CorpusReport
from uncollapse.data.known import known, one_at_a_time
from uncollapse.data.permutation import Permutation, random_order
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.loading import learn_tokenizer

TOKENIZER = Tokenizer.train(["a b c d e"], "whitespace", None)


def seeds(*numbers: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(numbers)


def corpus_of(lengths: list[int]) -> Corpus:
    texts = [" ".join("abcde"[(i + j) % 5] for j in range(n)) for i, n in enumerate(lengths)]
    return Corpus.from_texts(texts, TOKENIZER, labels={"third": [i % 3 for i in range(len(texts))]})


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small corpora and files are treated as large ones are."""
    monkeypatch.setattr(permutation_module, "KEPT_ROWS", 0)
    monkeypatch.setattr(known_module, "LARGE", 0)
    monkeypatch.setattr(known_module, "_SETTLED", -(10**18))
    monkeypatch.setattr(vocabularies_module, "LARGE", 0)
    monkeypatch.setattr(corpus_module, "COPIED_BYTES", 0)


# --- the order ------------------------------------------------------------------------------


@given(st.integers(0, 3000), st.integers(0, 9), st.integers(0, 3000), st.integers(0, 3000))
def test_a_permutation_has_every_number_once(size: int, seed: int, begin: int, end: int) -> None:
    order = Permutation(size, seeds(seed))
    whole = order[:]
    assert whole.dtype == np.int64
    assert np.array_equal(np.sort(whole), np.arange(size))
    assert np.array_equal(order[begin:end], whole[begin:end])
    assert len(order) == size


def test_permutations_look_random() -> None:
    size, cells = 1_000_003, 50
    orders = [Permutation(size, seeds(0, epoch))[:] for epoch in range(3)]
    # 2,401 degrees of freedom: 2,401 ± 69 by chance
    for one, other in [(np.arange(size), orders[0]), (orders[0], orders[1]), orders[1:]]:
        pairs = np.bincount(one * cells // size * cells + other * cells // size)
        expected = size / cells**2
        assert 2100 < ((pairs - expected) ** 2 / expected).sum() < 2700
        assert (one == other).sum() < 9  # 1 by chance
    # neighbours: how far apart they are taken to is as if drawn
    steps = np.abs(np.diff(orders[0].astype(float)))
    assert steps.mean() / size == pytest.approx(1 / 3, abs=0.002)
    assert np.corrcoef(orders[0][1:], orders[0][:-1])[0, 1] == pytest.approx(0, abs=0.005)


def test_the_order_of_ordinary_corpora_is_that_of_numpy() -> None:
    for size in (1, 2, 100, 70_000):
        expected = np.random.default_rng(seeds(3, 1)).permutation(size)
        assert np.array_equal(random_order(size, seeds(3, 1))[:], expected)
    assert isinstance(random_order(permutation_module.KEPT_ROWS + 1, seeds(0)), Permutation)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("world", [1, 2])
def test_batches_of_a_large_corpus(world: int) -> None:
    corpus = corpus_of([1 + i % 9 for i in range(203)])
    ranks = [BucketedBatches(corpus, 8, pool=4, seed=1, rank=r, world=world) for r in range(world)]
    epochs = []
    for epoch in range(3):
        rows = [[b.index.tolist() for b in rank.epoch(epoch)] for rank in ranks]
        assert sorted(i for rank in rows for batch in rank for i in batch) == list(range(203))
        for rank, own in zip(ranks, rows, strict=True):
            assert [b.index.tolist() for b in rank.epoch(epoch, start=11)] == own[11:]
        epochs.append(str(rows))
    assert len(set(epochs)) == 3


def test_memory_for_batches_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    sentences = 3_000_000_000  # more than 32 bits can number; the file is a hole
    with (tmp_path / "offsets.bin").open("wb") as file:
        file.truncate(8 * (sentences + 1))
    offsets = np.memmap(tmp_path / "offsets.bin", np.int64, "r").view(np.ndarray)
    corpus = Corpus(np.zeros(1, np.uint16), offsets, {}, CorpusReport(sentences=sentences))
    batches = BucketedBatches(corpus, 64, pool=3)  # each row is a page to read
    tracemalloc.start()
    for number in (0, len(batches) // 2, len(batches) - 1):
        batch = next(batches.epoch(5, start=number))
        assert batch.size == 64
        assert 0 <= int(batch.index.min()) < int(batch.index.max()) < sentences
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@given(st.lists(st.integers(1, 12), min_size=8, max_size=60), st.integers(2, 9), st.integers(1, 2))
def test_a_pass_over_a_large_corpus(lengths: list[int], batch_size: int, world: int) -> None:
    corpus = corpus_of(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "BLOCK", 7)
        ranks = [
            list(sequential_batches(corpus, batch_size, rank=r, world=world)) for r in range(world)
        ]
    assert len({len(rank) for rank in ranks}) == 1
    rows = [i for rank in ranks for batch in rank for i in batch.index.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    assert int(ranks[0][0].lengths.max()) == max(lengths) + 2  # the longest come first
    assert all(batch.total <= batch_size for rank in ranks for batch in rank[:-1]) or world > 1


# --- parts of a corpus ----------------------------------------------------------------------


def source_of(folder: Path, rows: int = 300) -> Path:
    path = folder / "a.jsonl"
    lines = ({"text": "a b zebra "[: 2 + 2 * (i % 5)], "kind": f"k{i % 4}"} for i in range(rows))
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def same(a: Corpus, b: Corpus) -> bool:
    arrays = [(a.tokens, b.tokens), (a.offsets, b.offsets)]
    arrays += [(a.columns[name].ids, b.columns[name].ids) for name in a.columns]
    equal = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)
    names = [[(name, column.names) for name, column in c.columns.items()] for c in (a, b)]
    return equal and names[0] == names[1] and a.report == b.report


def test_what_is_not_held_out_of_a_large_corpus_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"label_columns": {"kind": None}, "cache": tmp_path / "cache"}
    corpus = Corpus.build(source_of(tmp_path), TOKENIZER, **options)
    expected = corpus.hold_out(0.1, 20)
    assert expected[0].entry is None
    monkeypatch.setattr(corpus_module, "COPIED_BYTES", 0)
    found = corpus.hold_out(0.1, 20)
    assert found[0].entry is not None
    assert found[0].entry.parent == tmp_path / "cache"
    assert all(same(*pair) for pair in zip(expected, found, strict=True))
    monkeypatch.setattr(cache_module, "_build", None)
    assert same(corpus.hold_out(0.1, 20)[0], found[0])  # not copied again
    # a part of it is in memory, and split there
    assert found[0].head(100).hold_out(0.1, 20)[0].entry is None


def test_a_sample_is_always_the_same_and_in_order() -> None:
    corpus = corpus_of(list(range(1, 60)))
    assert corpus.sample(59) is corpus
    lengths = corpus.sample(20).lengths
    assert len(lengths) == 20
    assert (np.diff(lengths) > 0).all()
    assert np.array_equal(lengths, corpus.sample(20).lengths)
    assert corpus.longest == 59
    assert corpus.head(0).longest == 0


@pytest.mark.parametrize("kind", ["labels", "dialogues"])
def test_memory_to_build_does_not_grow_with_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(corpus_module, "CHUNK", 64)
    monkeypatch.setattr(cache_module, "CHUNK", 64)
    monkeypatch.setattr(cache_module, "_RENUMBERED", 50)
    monkeypatch.setattr(cache_module, "_measure", lambda _: {})  # a megabyte at a time
    # what is read of the finished entry is another matter
    monkeypatch.setattr(cache_module, "_open", lambda entry: None if not entry.exists() else entry)
    monkeypatch.setattr(Corpus, "_of", lambda *_: None)
    peaks = []
    for rows in (2_000, 8_000):
        path = tmp_path / f"{rows}.jsonl"
        turns = [{"text": "a b", "speaker": "A", "kind": "x"}, {"text": "c", "speaker": "B"}]
        row = {"text": "a b c", "kind": "x"} if kind == "labels" else {"turns": turns}
        path.write_text((json.dumps(row) + "\n") * rows)
        tracemalloc.start()
        columns = {"kind": None, "third": ["x"]} if kind == "labels" else {"kind": None}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uncollapse.data.sources.Rows._require_labels", lambda _: None)
            Corpus.build(path, TOKENIZER, label_columns=columns, cache=tmp_path / "cache")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 6_000  # not a byte a row


# --- nothing twice --------------------------------------------------------------------------


def counted(calls: list[Path]) -> Callable[[Path], int]:
    def find(path: Path) -> int:
        calls.append(path)
        return path.stat().st_size

    return find


def test_large_files_are_read_again_only_if_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_module, "LARGE", 10)
    path, calls = tmp_path / "a", []

    def ask(folder: Path | None = tmp_path / "notes") -> int:
        return known(path, "size", counted(calls), folder)

    path.write_text("x" * 20)
    assert [ask(), ask()] == [20, 20]
    assert len(calls) == 2  # it has changed just now, and may again within the clock's tick
    old = time.time() - 100
    os.utime(path, (old, old))
    assert ask() == 20
    assert len(calls) == 3  # the inode has changed just now
    monkeypatch.setattr(known_module, "_SETTLED", 0)
    assert [ask(), ask(), ask()] == [20, 20, 20]
    assert len(calls) == 4
    path.write_text("y" * 30)
    os.utime(path, (old, old))
    assert [ask(), ask()] == [30, 30]
    assert len(calls) == 5
    known(path, "another", counted(calls), tmp_path / "notes")
    assert ask(None) == 30
    assert len(calls) == 7
    for note in (tmp_path / "notes").iterdir():
        note.write_text('{"state": 1}')
    assert ask() == 30
    assert len(calls) == 8
    path.write_text("small")
    assert [ask(), ask()] == [5, 5]
    assert len(calls) == 10
    with pytest.raises(FileNotFoundError):
        known(tmp_path / "none", "size", counted(calls), None)


def test_one_goes_first_and_the_others_wait(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "thing"
    inside, most, made = [0], [0], [0]

    def make() -> None:
        with one_at_a_time(path):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            if not path.exists():
                time.sleep(0.05)
                path.write_text("made")
                made[0] += 1
            inside[0] -= 1

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert (most, made) == ([1], [1])
    assert [*path.parent.iterdir()] == [path]


def test_without_locks_all_go_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with one_at_a_time(tmp_path / "file" / "thing"):
        pass
    with pytest.raises(UserError), one_at_a_time(tmp_path / "thing"):
        raise UserError("is not swallowed")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("everything_is_large")
def test_the_vocabulary_of_a_large_source_is_learnt_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    path, learnt = tmp_path / "a.txt", []
    train = Tokenizer.train
    monkeypatch.setattr(Tokenizer, "train", lambda *a: learnt.append(1) or train(*a))
    path.write_text("a b c\n")
    config = DataConfig(tokenizer="whitespace", vocabulary_size=None)
    first = learn_tokenizer(path, config)
    again = learn_tokenizer(path, config)
    assert (again.tokens, again.kind) == (first.tokens, first.kind)
    assert again.fingerprint == first.fingerprint
    assert len(learnt) == 1
    (kept,) = (tmp_path / "cache").glob("*.tokenizer.json")
    kept.write_text(kept.read_text().replace('"a"', '"z"'))  # damaged
    assert learn_tokenizer(path, config).tokens == first.tokens
    assert len(learnt) == 2
    assert learn_tokenizer(path, config).tokens == first.tokens
    assert len(learnt) == 2
    words = DataConfig(tokenizer="words", vocabulary_size=None)
    assert learn_tokenizer(path, words).kind == "words"
    path.write_text("d e\n")
    assert learn_tokenizer(path, config).tokens[4:] == ["d", "e"]
    assert learn_tokenizer(["f"], config).tokens[4:] == ["f"]
    assert len(learnt) == 5
