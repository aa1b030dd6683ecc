from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.data import cache as module
from uncollapse.data.cache import default_cache
from uncollapse.data.corpus import Corpus, CorpusReport
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError, UserError

TEXTS = ["a b c", "", "a <unk> zebra a", "  ", "c c c c c c"]
LABELS = ["pos", None, "neg", "pos", None]
TOKENIZER = Tokenizer.train(["a b c"], "whitespace", None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = zip(TEXTS, LABELS, strict=True)
    path.write_text("".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in rows))
    return path


def build(source: Path, **options) -> Corpus:
    options = {"label_columns": {"label": None}, "cache": source.parent / "cache", **options}
    return Corpus.build(source, TOKENIZER, **options)


def entries(source: Path) -> list[Path]:
    return sorted((source.parent / "cache").iterdir())


def same(a: Corpus, b: Corpus) -> bool:
    arrays = [(a.tokens, b.tokens), (a.offsets, b.offsets)]
    arrays += [(a.columns[name].ids, b.columns[name].ids) for name in a.columns]
    equal = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)
    names = [[(name, column.names) for name, column in c.columns.items()] for c in (a, b)]
    return equal and names[0] == names[1] and a.report == b.report


def test_built_and_in_memory_are_the_same(source: Path) -> None:
    on_disk = build(source, max_length=4)
    in_memory = Corpus.from_texts(TEXTS, TOKENIZER, labels={"label": LABELS}, max_length=4)
    assert same(on_disk, in_memory)
    assert same(on_disk, build(source, max_length=4))
    expected = CorpusReport(sentences=3, tokens=11, empty=2, cut=1, unknown=2)
    assert on_disk.report == expected
    assert len(on_disk) == 3
    assert on_disk.lengths.tolist() == [3, 4, 4]
    assert on_disk.labels is not None
    assert on_disk.labels.dtype == np.int64
    assert on_disk.label_names == ["neg", "pos"]
    assert on_disk.labels.tolist() == [1, 0, -1]
    assert on_disk.tokens.dtype == np.uint16
    assert TOKENIZER.decode(on_disk.sentence(1)) == "a <unk> <unk> a"
    assert isinstance(on_disk.tokens.base, np.memmap)


def test_the_report_says_everything(source: Path) -> None:
    assert build(source, max_length=4).summary() == (
        "3 sentences, 11 tokens (18.18 % unknown); 2 empty rows dropped; "
        "1 sentences cut to the maximum length; label: 2 of 3 labelled, 2 classes"
    )


@given(
    st.lists(st.lists(st.sampled_from("abcz")).map(" ".join), min_size=1),
    st.integers(1, 6) | st.none(),
)
def test_sentences_come_back(texts: list[str], max_length: int | None) -> None:
    expected = [TOKENIZER.encode(text)[:max_length] for text in texts if text]
    if not expected:
        with pytest.raises(UserError, match="no sentence"):
            Corpus.from_texts(texts, TOKENIZER)
        return
    corpus = Corpus.from_texts(texts, TOKENIZER, max_length=max_length)
    assert [corpus.sentence(i).tolist() for i in range(len(corpus))] == expected
    head = corpus.head(2)
    assert [head.sentence(i).tolist() for i in range(len(head))] == expected[:2]
    assert head.report.sentences == len(head) == min(2, len(expected))
    assert head.report.tokens == sum(map(len, expected[:2]))


def test_many_chunks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(source, cache=source.parent / "one")
    monkeypatch.setattr(module, "CHUNK", 2)
    assert same(whole, build(source))


def test_label_names() -> None:
    def names(labels: list, label_names: list[str] | None = None) -> tuple[list[str], list[int]]:
        texts = ["a"] * len(labels)
        classes = None if label_names is None else {"label": label_names}
        corpus = Corpus.from_texts(texts, TOKENIZER, labels={"label": labels}, classes=classes)
        assert corpus.labels is not None
        return corpus.label_names, corpus.labels.tolist()

    assert names([1, 0, None, 1]) == (["0", "1"], [1, 0, -1, 1])
    assert names([10, 9, 2]) == (["2", "9", "10"], [2, 1, 0])
    assert names(["b", "a"]) == (["a", "b"], [1, 0])
    assert names(["b", "a"], ["b", "c", "a"]) == (["b", "c", "a"], [0, 2])
    with pytest.raises(UserError, match="row 1: unknown class in column 'label': 'negativ'; did"):
        names(["negativ"], ["positive", "negative"])
    with pytest.raises(UserError, match="must differ"):
        names(["a"], ["a", "a"])


def test_bad_arguments(source: Path) -> None:
    with pytest.raises(UserError, match="max_length"):
        build(source, max_length=0)
    with pytest.raises(UserError, match="1 texts, but 2 labels 'label'"):
        Corpus.from_texts(["a"], TOKENIZER, labels={"label": [0, 1]})
    with pytest.raises(UserError, match=r"a\.jsonl, row 1: unknown class in column 'label': 'pos'"):
        build(source, label_columns={"label": ["neg"]})
    assert entries(source) == []


def test_large_vocabularies_need_32_bits() -> None:
    tokenizer = Tokenizer.train((f"w{i}" for i in range(70_000)), "whitespace", None)
    corpus = Corpus.from_texts([tokenizer.tokens[-1]], tokenizer)
    assert corpus.tokens.dtype == np.uint32
    assert corpus.sentence(0).tolist() == [70_003]


def test_the_key_is_the_content(source: Path) -> None:
    build(source)
    (entry,) = entries(source)
    source.rename(source.with_name("b.jsonl"))
    build(source.with_name("b.jsonl"))
    assert entries(source) == [entry]
    build(source.with_name("b.jsonl"), max_length=2)
    build(source.with_name("b.jsonl"), label_columns=None)
    build(source.with_name("b.jsonl"), label_columns={"label": ["pos", "neg"]})
    source.write_text('{"text": "a", "label": 1}')
    build(source)
    other = Tokenizer.train(["a"], "whitespace", None)
    Corpus.build(source, other, cache=source.parent / "cache")
    assert len(entries(source)) == 6


def test_an_entry_is_used_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(source)
    monkeypatch.setattr(module, "_build", None)
    assert same(first, build(source))


def cut_file(entry: Path) -> None:
    tokens = (entry / "tokens.bin").read_bytes()
    (entry / "tokens.bin").write_bytes(tokens[:-1])


def flip_bit(entry: Path) -> None:
    content = bytearray((entry / "offsets.bin").read_bytes())
    content[9] ^= 1
    (entry / "offsets.bin").write_bytes(content)


def replace_by_file(entry: Path) -> None:
    for path in entry.iterdir():
        path.unlink()
    entry.rmdir()
    entry.write_text("")


DAMAGES = {
    "cut": cut_file,
    "flipped bit": flip_bit,
    "missing array": lambda entry: (entry / "labels-0.bin").unlink(),
    "missing manifest": lambda entry: (entry / "manifest.json").unlink(),
    "empty manifest": lambda entry: (entry / "manifest.json").write_text("{}"),
    "broken manifest": lambda entry: (entry / "manifest.json").write_text('{"arrays'),
    "alien manifest": lambda entry: (entry / "manifest.json").write_text('{"arrays": {"a": 1}}'),
    "a file": replace_by_file,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found_and_built_anew(source: Path, damage) -> None:
    whole = build(source)
    expected = Corpus.from_texts(TEXTS, TOKENIZER, labels={"label": LABELS})
    (entry,) = entries(source)
    damage(entry)
    assert same(build(source), expected)
    assert entries(source) == [entry]
    assert len(whole) == 3


def test_the_loser_of_a_race_takes_what_is_there(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module._write

    def slow(*arguments) -> None:
        write(*arguments)
        monkeypatch.setattr(module, "_write", write)
        build(source)  # another process is done in the meantime

    monkeypatch.setattr(module, "_write", slow)
    monkeypatch.setattr(module, "one_at_a_time", nullcontext)  # where there are no locks
    assert len(build(source)) == 3
    assert len(entries(source)) == 1


def build_in_process(path: Path, barrier, results) -> None:
    barrier.wait()
    corpus = build(path)
    results.put((len(corpus), int(corpus.tokens.sum())))


def test_two_processes_at_once(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    lines = (json.dumps({"text": "a b c " * (1 + i % 5), "label": i % 2}) for i in range(20_000))
    source.write_text("\n".join(lines))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (source, barrier, results)
    workers = [context.Process(target=build_in_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1
    assert len(entries(source)) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError
tokenizer = Tokenizer.train(["a b c"], "whitespace", None)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    Corpus.build(sys.argv[1], tokenizer, cache=Path(sys.argv[2]))
except RunError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c\n" * 50_000)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.txt"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write the corpus cache" in done.stdout
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interrupted_build_leaves_nothing_behind(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(source)
    assert entries(source) == []


def test_a_cache_that_is_a_file(source: Path) -> None:
    (source.parent / "cache").write_text("")
    with pytest.raises(RunError, match="cannot write the corpus cache"):
        build(source)


def test_a_source_that_changes_while_it_is_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module._write

    def changed(*arguments) -> None:
        write(*arguments)
        source.write_text('{"text": "b"}')

    monkeypatch.setattr(module, "_write", changed)
    with pytest.raises(RunError, match="changed while it was read"):
        build(source)
    assert entries(source) == []


def test_where_the_cache_is(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(source.parent / "cache"))
    build(source, cache=None)
    assert len(entries(source)) == 1
    monkeypatch.delenv("UNCOLLAPSE_CACHE")
    assert default_cache() == Path.home() / ".cache" / "uncollapse"


def test_a_selection_keeps_rows_labels_and_counts() -> None:
    texts = ["a b c", "b", "c c", "a z"]
    tokenizer = Tokenizer.train(texts[:3], "whitespace", None)
    labels = {"label": ["x", None, "y", "x"]}
    corpus = Corpus.from_texts(texts, tokenizer, labels=labels)
    part = corpus.select(np.array([3, 1]))
    assert [tokenizer.decode(part.sentence(i)) for i in range(2)] == ["a <unk>", "b"]
    assert part.label_ids is not None
    assert part.label_ids.tolist() == [0, -1]
    assert (part.report.tokens, part.report.unknown) == (3, 1)


def test_held_out_sentences_are_the_same_each_time_and_are_not_trained_on() -> None:
    texts = [f"w{i}" for i in range(100)]
    corpus = Corpus.from_texts(texts, Tokenizer.train(texts, "whitespace", None))
    train, held_out = corpus.hold_out(0.05, 2_000)
    assert (len(train), len(held_out)) == (95, 5)
    assert sorted([*train.tokens, *held_out.tokens]) == sorted(corpus.tokens)
    assert (corpus.hold_out(0.05, 2_000)[1].tokens == held_out.tokens).all()
    assert len(corpus.hold_out(0.5, 10)[1]) == 10
    with pytest.raises(UserError, match="cannot be split"):
        corpus.head(1).hold_out(0.05, 1)
