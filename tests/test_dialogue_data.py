"""Dialogues from records to batches of contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_real_corpora import corpus_file

from uncollapse.config import DataConfig
from uncollapse.data.batches import Batch, BucketedBatches, sequential_batches
from uncollapse.data.check import check
from uncollapse.data.contexts import ContextBatch
from uncollapse.data.corpus import Corpus
from uncollapse.data.records import Row
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.loading import available_columns, contexts_of, corpus_of, texts_of

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)], "whitespace", None)
TALK = [
    {
        "topic": "food",
        "turns": [
            {"speaker": "A", "text": "a b", "act": ["ask", "greet"]},
            {"speaker": "B", "text": " ", "act": "say"},
            {"speaker": 2, "text": "b"},
            {"text": "c", "act": []},
        ],
    },
    {"turns": []},
    {"topic": "work", "turns": [{"speaker": "B", "text": "d", "act": "say"}]},
]
PAIRS = [
    {"context": ["a", {"speaker": "B", "text": "b"}, " "], "response": "c", "speaker": "B"},
    {"context": [], "response": "d", "mood": "sad"},
    {"context": "e __eou__ f __eou__", "response": "g"},
]


def config(turns: int = 9, **options: Any) -> DataConfig:
    return DataConfig(context_turns=turns, **options)


def said(context: ContextBatch) -> list[list[str]]:
    """The texts of every context."""
    texts = [TOKENIZER.decode(ids) for ids in context.tokens.tolist()]
    return [[texts[u] for u in row if u >= 0] for row in context.rows.tolist()]


def contexts(corpus: Corpus) -> list[list[str]]:
    assert corpus.contexts is not None
    return said(corpus.contexts.batch(np.arange(len(corpus))))


def sentences(corpus: Corpus) -> list[str]:
    return [TOKENIZER.decode(corpus.sentence(i)) for i in range(len(corpus))]


def message_of(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(path: Path, records: list) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


# --- rows -------------------------------------------------------------------------------------


def test_a_dialogue_is_a_row_a_turn(tmp_path: Path) -> None:
    rows = Rows(jsonl(tmp_path / "a.jsonl", TALK), label_columns=["act", "topic"])
    assert list(rows) == [
        Row("a b", ("ask+greet", "food"), 0, "A"),
        Row(" ", ("say", "food"), 1, "B"),
        Row("b", (None, "food"), 2, "2"),
        Row("c", (None, "food"), 3, None),
        Row("", (None, None), 0, None),
        Row("d", ("say", "work"), 0, "B"),
    ]
    assert set(rows.columns) == {"text", "topic", "act"}
    assert rows.line == 3


def test_a_context_and_its_response_are_rows(tmp_path: Path) -> None:
    rows = list(Rows(jsonl(tmp_path / "a.jsonl", PAIRS), label_columns=["mood"]))
    assert rows[:4] == [
        Row("a", (None,), 0, None, False),
        Row("b", (None,), 1, "B", False),
        Row(" ", (None,), 2, None, False),
        Row("c", (None,), 3, "B", True),
    ]
    assert rows[4] == Row("d", ("sad",))
    assert [row.text for row in rows[5:]] == ["e", "f", "g"]


def test_csv_and_parquet_have_contexts_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("context,response,mood\na __eou__ b __eou__,c,sad\n,d,\n")
    corpus = corpus_of(path, TOKENIZER, config(label_column="mood"))
    assert contexts(corpus) == [["a", "b"], []]
    assert sentences(corpus) == ["c", "d"]
    assert corpus.labels is not None
    assert corpus.labels.tolist() == [0, -1]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"context": [["a", "b"], []], "response": ["c", "d"], "mood": ["sad", None]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    again = corpus_of(tmp_path / "a.parquet", TOKENIZER, config(label_column="mood"))
    assert contexts(again) == contexts(corpus)
    turns = [{"turns": [{"speaker": "A", "text": "a", "act": "x"}, {"text": "b", "act": None}]}]
    parquet.write_table(pyarrow.Table.from_pylist(turns), tmp_path / "c.parquet")
    corpus = corpus_of(tmp_path / "c.parquet", TOKENIZER, config(label_column="act"))
    assert contexts(corpus) == [[], ["a"]]
    assert corpus.label_names == ["x"]


def test_columns_and_texts_of_dialogues() -> None:
    assert available_columns(TALK, config(), ["act", "topic", "mood"]) == ["act", "topic"]
    assert list(texts_of(PAIRS, config())) == ["a", "b", " ", "c", "d", "e", "f", "g"]
    text = message_of(lambda: corpus_of(TALK, TOKENIZER, config(), columns=["topik"]))
    assert "no column 'topik'; did you mean 'topic'?" in text


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"turns": "a"}, "line 2: 'turns' must be a list, not str"),
        ({"turns": ["a"]}, "line 2, turn 1: a turn must be a mapping with a text, not str"),
        (
            {"turns": [{"text": "a"}, {"txt": "a"}]},
            "line 2, turn 2: no column 'text'; did you mean 'txt'? (columns: txt)",
        ),
        ({"turns": [{"text": None}]}, "line 2, turn 1: column 'text' must be a string, not null"),
        (
            {"turns": [{"text": "a", "speaker": []}]},
            "line 2, turn 1: 'speaker' must be a string or a number, not list",
        ),
        (
            {"turns": [{"text": "a", "act": {"b": 1}}]},
            "line 2, turn 1: label 'act' must be a string or a number, not dict",
        ),
        ({"turns": [{"text": "\ud800"}]}, "line 2, turn 1: the text has a lone surrogate"),
        ({"text": "a"}, "line 2: a sentence among dialogues"),
        ({"context": [], "response": "a"}, "line 2: a response among dialogues"),
        ({"txt": "a"}, "line 2: no column 'text'; did you mean 'txt'?"),
    ],
)
def test_faulty_dialogues(record: dict, message: str, tmp_path: Path) -> None:
    first = {"turns": [{"text": "a", "act": "x"}]}
    path = jsonl(tmp_path / "a.jsonl", [first, record])
    assert f"{path}, {message}" in message_of(
        lambda: corpus_of(path, TOKENIZER, config(), columns=["act"])
    )
    in_memory = message.replace("line", "dialogue")
    if "turn " in message:
        text = message_of(lambda: corpus_of([first, record], TOKENIZER, config(), columns=["act"]))
        assert in_memory in text


@pytest.mark.parametrize("header", ["Context,Response", "context,answer", "turns_,response"])
def test_columns_that_are_nearly_those_of_dialogues(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\na,b\n", encoding="utf-8")
    text = message_of(lambda: corpus_of(path, TOKENIZER, config()))
    assert text == (
        f"{path}: dialogues need the columns 'turns', or 'context' and 'response' "
        f"(columns: {header.replace(',', ', ')})"
    )
    text = message_of(lambda: corpus_of([{"context": ["a"]}], TOKENIZER, config()))
    assert "dialogues need the columns" in text


def test_more_faults() -> None:
    assert "a dialogue among sentences" in message_of(
        lambda: corpus_of(["a", *TALK], TOKENIZER, config())
    )
    bad = {"context": 3, "response": "a"}
    assert "'context' must be a list or a string, not int" in message_of(
        lambda: corpus_of([bad], TOKENIZER, config())
    )
    bad = {"context": ["a"], "response": None}
    assert "column 'response' must be a string, not null" in message_of(
        lambda: corpus_of([bad], TOKENIZER, config())
    )
    only_contexts = [{"context": ["a"], "response": " "}]
    assert "no sentence with a word" in message_of(
        lambda: corpus_of(only_contexts, TOKENIZER, config())
    )
    classes = {"act": ["ask+greet"]}
    text = message_of(
        lambda: corpus_of(TALK, TOKENIZER, config(), classes=classes, columns=["act"])
    )
    assert "dialogue 3, turn 1: unknown class in column 'act': 'say'" in text


# --- corpora ----------------------------------------------------------------------------------


def test_contexts_of_a_corpus(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", TALK)
    for data in (path, TALK):
        corpus = corpus_of(data, TOKENIZER, config(2, label_column="topic"))
        assert sentences(corpus) == ["a b", "b", "c", "d"]
        assert contexts(corpus) == [[], ["a b"], ["a b", "b"], []]
        report = corpus.report
        assert (report.dialogues, report.empty, report.context_turns) == (2, 2, 3)
        assert (report.longest_context, report.cut_contexts) == (2, 0)
        assert "2 dialogues" in corpus.summary()
        assert corpus.contexts is not None
        # the utterances are the corpus's own, not a copy
        assert corpus.contexts.tokens is corpus.tokens
    cut = corpus_of(TALK, TOKENIZER, config(1))
    assert contexts(cut) == [[], ["a b"], ["b"], []]
    assert cut.report.cut_contexts == 1
    lone = corpus_of(TALK, TOKENIZER, config(0))
    assert lone.contexts is None
    assert lone.report.dialogues == 2
    assert sentences(lone) == sentences(cut)


def test_responses_alone_are_sentences(tmp_path: Path) -> None:
    for data in (jsonl(tmp_path / "a.jsonl", PAIRS), PAIRS):
        corpus = corpus_of(data, TOKENIZER, config(9, label_column="mood"))
        assert sentences(corpus) == ["c", "d", "g"]
        assert contexts(corpus) == [["a", "b"], [], ["e", "f"]]
        assert corpus.label_names == ["sad"]
        assert corpus.report.sentences == corpus.report.dialogues == 3
        assert corpus.report.tokens == 3
        assert corpus.contexts is not None
        same = corpus.contexts.batch(np.arange(3)).same_speaker.tolist()
        assert same == [[-1, 1], [-1, -1], [-1, -1]]
    assert sentences(corpus_of(PAIRS, TOKENIZER, config(0))) == ["c", "d", "g"]


def test_plain_texts_have_empty_contexts() -> None:
    corpus = corpus_of(["a b", "c"], TOKENIZER, config(3))
    assert contexts(corpus) == [[], []]
    assert corpus.dialogue is None
    assert corpus.report.dialogues == 0
    assert corpus_of(["a b", "c"], TOKENIZER, config(0)).contexts is None
    texts = Corpus.from_texts(["a", "b"], TOKENIZER, context_turns=2)
    (batch,) = sequential_batches(texts, 2)
    assert batch.context is not None
    assert batch.context.rows.shape == (2, 0)
    assert batch.context.tokens.shape == (0, 2)
    with pytest.raises(UserError, match="context_turns"):
        Corpus.from_texts(["a"], TOKENIZER, context_turns=-1)


def test_rows_that_are_kept() -> None:
    full = [{"turns": [{"text": text} for text in "ab"]}, {"turns": [{"text": "c"}]}]
    assert sentences(corpus_of(full, TOKENIZER, config(), keep_rows=True)) == ["a", "b", "c"]
    assert "sentence 2 is empty" in message_of(
        lambda: corpus_of(TALK, TOKENIZER, config(), keep_rows=True)
    )


def test_selections_carry_their_contexts() -> None:
    corpus = corpus_of(TALK, TOKENIZER, config(9))
    chosen = corpus.select(np.array([2, 3]))
    assert contexts(chosen) == [["a b", "b"], []]
    assert (chosen.report.dialogues, chosen.report.context_turns) == (2, 2)
    assert contexts(corpus.head(2)) == [[], ["a b"]]
    assert corpus.head(2).report.dialogues == 1


def test_whole_dialogues_are_held_out() -> None:
    rng = np.random.default_rng(1)
    dialogues = [
        {"turns": [{"text": WORDS[rng.integers(8)]} for _ in range(rng.integers(1, 9))]}
        for _ in range(60)
    ]
    corpus = corpus_of(dialogues, TOKENIZER, config(3))
    rest, held = corpus.hold_out(0.2, 50)
    assert rest.dialogue is not None
    assert held.dialogue is not None
    assert not set(rest.dialogue.tolist()) & set(held.dialogue.tolist())
    assert len(rest) + len(held) == len(corpus)
    assert 30 <= len(held) <= 50
    again = corpus.hold_out(0.2, 50)[1]
    assert np.array_equal(again.tokens, held.tokens)
    assert contexts(again) == contexts(held)
    with pytest.raises(UserError, match="one dialogue cannot be split"):
        corpus_of(TALK[:1], TOKENIZER, config(3)).hold_out(0.5, 5)
    # sentences that are no turns are split as they always were
    texts = Corpus.from_texts(WORDS, TOKENIZER, context_turns=3)
    plain = Corpus.from_texts(WORDS, TOKENIZER)
    assert sentences(texts.hold_out(0.3, 9)[1]) == sentences(plain.hold_out(0.3, 9)[1])


# --- batches, against Python's slices ---------------------------------------------------------

turns_of_talk = st.lists(
    st.tuples(st.sampled_from(["", *WORDS, "a b", "c d e"]), st.sampled_from(["A", "B", None])),
    max_size=8,
)
talks = st.lists(turns_of_talk, min_size=1, max_size=8).filter(
    lambda talks: any(text for talk in talks for text, _ in talk)
)


def naive(talks: list, window: int) -> tuple[list, list, list]:
    """Sentences, contexts and whether their turns are of the same speaker."""
    texts, before, same = [], [], []
    for talk in talks:
        kept = [(text, speaker) for text, speaker in talk if text]
        for place, (text, speaker) in enumerate(kept):
            context = kept[max(place - window, 0) : place]
            texts.append(text)
            before.append([text for text, _ in context])
            known = [(speaker, other) for _, other in context]
            same.append([-1 if None in pair else int(pair[0] == pair[1]) for pair in known])
    return texts, before, same


def as_records(talks: list) -> list[dict]:
    return [
        {"turns": [{"text": text, "speaker": speaker} for text, speaker in talk]} for talk in talks
    ]


def check_batch(batch: Batch, expected: tuple[list, list, list]) -> None:
    texts, before, same = expected
    context = batch.context
    assert context is not None
    assert context.size == batch.size
    rows = batch.index.tolist()
    assert [TOKENIZER.decode(ids) for ids in batch.tokens.tolist()] == [texts[i] for i in rows]
    assert said(context) == [before[i] for i in rows]
    assert context.rows.shape[1] == max(len(before[i]) for i in rows)
    for k, i in enumerate(rows):
        turns = len(same[i])
        assert context.mask[k].tolist() == [u < turns for u in range(context.rows.shape[1])]
        assert context.same_speaker[k, :turns].tolist() == same[i]
        assert (context.same_speaker[k, turns:] == -1).all()
        assert (context.rows[k, turns:] == -1).all()
    lengths = context.lengths.tolist()
    assert context.tokens.shape[1] == max(lengths, default=2)
    for ids, length in zip(context.tokens.tolist(), lengths, strict=True):
        assert ids[0] == 2
        assert ids[length - 1] == 3
        assert set(ids[length:]) <= {0}
    # each utterance is there once, and none that nobody needs
    assert set(context.rows[context.mask].tolist()) == set(range(len(lengths)))


@settings(max_examples=60, deadline=None)
@given(talks, st.integers(1, 9), st.integers(1, 2))
def test_contexts_are_slices(talks: list, window: int, world: int) -> None:
    expected = naive(talks, window)
    corpus = corpus_of(as_records(talks), TOKENIZER, config(window))
    assert contexts(corpus) == expected[1]
    if len(corpus) < world:
        return
    seen = []
    for rank in range(world):
        for batch in BucketedBatches(corpus, 3, pool=2, rank=rank, world=world).epoch(0):
            check_batch(batch, expected)
        for batch in sequential_batches(corpus, 4, rank=rank, world=world):
            check_batch(batch, expected)
            seen += batch.index.tolist()
    assert sorted(seen) == list(range(len(corpus)))


@settings(max_examples=40, deadline=None)
@given(talks, st.data())
def test_selected_and_repeated_contexts(talks: list, data: st.DataObject) -> None:
    corpus = corpus_of(as_records(talks), TOKENIZER, config(4))
    assert corpus.contexts is not None
    whole = corpus.contexts.batch(np.arange(len(corpus)))
    rows = data.draw(st.lists(st.integers(0, len(corpus) - 1), min_size=1, max_size=6))
    chosen, expected = whole.select(torch.tensor(rows)), corpus.contexts.batch(np.array(rows))
    for name in ("tokens", "lengths", "rows", "same_speaker"):
        assert torch.equal(getattr(chosen, name), getattr(expected, name)), name
    mask = torch.arange(len(corpus)) % 2 == 0
    assert said(whole.select(mask)) == said(whole)[::2]
    (batch,) = sequential_batches(corpus, len(corpus))
    assert batch.context is not None
    twice = batch.repeat(2).to("cpu").context
    assert twice is not None
    assert said(twice) == said(batch.context) * 2
    assert torch.equal(twice.tokens, batch.context.tokens)


def test_batches_are_those_of_lone_sentences_with_contexts() -> None:
    dialogues = [{"turns": [{"text": word} for word in WORDS[: 1 + i % 8]]} for i in range(20)]
    with_contexts = corpus_of(dialogues, TOKENIZER, config(3))
    without = corpus_of(dialogues, TOKENIZER, config(0))
    order = BucketedBatches(with_contexts, 4, pool=3, seed=1)
    whole = list(order.epoch(2))
    for a, b in zip(whole, BucketedBatches(without, 4, pool=3, seed=1).epoch(2), strict=True):
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.index, b.index)
        assert b.context is None
    for a, b in zip(whole[5:], order.epoch(2, start=5), strict=True):
        assert a.context is not None
        assert b.context is not None
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.context.rows, b.context.rows)
        assert torch.equal(a.context.tokens, b.context.tokens)


def test_many_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from uncollapse.data import cache

    talks = [[("a", "A"), ("", "B"), ("b c", "A"), ("d", "B")]] * 3 + [[("", "A"), ("e", "A")]]
    expected = naive(talks, 2)
    path = jsonl(tmp_path / "a.jsonl", as_records(talks))
    for chunk in (1, 2, 5):
        monkeypatch.setattr(cache, "CHUNK", chunk)
        corpus = Corpus.build(path, TOKENIZER, cache=tmp_path / str(chunk), context_turns=2)
        (batch,) = sequential_batches(corpus, len(corpus))
        check_batch(batch, expected)


# --- contexts to answer -----------------------------------------------------------------------


def test_contexts_to_answer() -> None:
    dialogues = [
        ["a", " ", {"speaker": "B", "text": "b c d"}, {"speaker": "A", "text": "e"}],
        [],
        [{"speaker": "A", "text": "f"}],
    ]
    context = contexts_of(dialogues, TOKENIZER, config(2, max_length=2), ["A", "A", None])
    assert said(context) == [["b c", "e"], [], ["f"]]
    assert context.same_speaker.tolist() == [[0, 1], [-1, -1], [-1, -1]]
    assert contexts_of([[], []], TOKENIZER, config(2)).rows.shape == (2, 0)
    assert contexts_of(dialogues, TOKENIZER, config(0)).rows.shape == (3, 0)


@pytest.mark.parametrize(
    ("dialogues", "message"),
    [
        (["a"], "dialogue 1 must be a list of turns, not str"),
        ([[], 3], "dialogue 2 must be a list of turns, not int"),
        ([[], ["a", 3]], "dialogue 2, turn 2: a turn must be a mapping with a text, not int"),
        ([["a", {"txt": "a"}]], "dialogue 1, turn 2: no column 'text'; did you mean 'txt'?"),
        ([[{"text": None}]], "dialogue 1, turn 1: column 'text' must be a string, not null"),
        ([], "there are no dialogues"),
        ("a", "dialogues must be a list of lists of turns"),
    ],
)
def test_contexts_that_are_refused(dialogues: Any, message: str) -> None:
    assert message in message_of(lambda: contexts_of(dialogues, TOKENIZER, config()))


def test_speakers_are_one_for_each_dialogue() -> None:
    assert "1 dialogues, but 2 speakers" in message_of(
        lambda: contexts_of([["a"]], TOKENIZER, config(), ["A", "B"])
    )


# --- what a file holds ------------------------------------------------------------------------


def test_check_of_dialogues(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", TALK)
    report = check(path, label_column="act", context_turns=1)
    assert report.to_dict()["dialogues"] == {
        "dialogues": 2,
        "turns": {"min": 1, "mean": 2.0, "max": 3},
        "one_turn": 1,
        "responses": 4,
        "without_context": 2,
        "known_speakers": 0.75,
        "context_turns": 1,
        "longer_contexts": 1,
    }
    assert (report.sentences, report.empty, report.empty_lines) == (4, 2, [1, 2])
    assert report.labels == {"ask+greet": 1, "say": 1}
    text = report.to_text()
    assert "2 (1 of one turn)" in text
    assert "known for 75.0 % of the turns" in text
    assert "2 of 4 responses" in text
    pairs = check(jsonl(tmp_path / "b.jsonl", PAIRS)).dialogues
    assert pairs is not None
    assert (pairs.responses, pairs.without_context, pairs.longer_contexts) == (3, 1, None)


@pytest.mark.parametrize(
    ("name", "dialogues", "utterances"),
    [
        ("dailydialog/train", 11_118, 87_170),
        ("dailydialog/test", 1_000, 7_740),
        ("smd/validation", 302, 1_565),
        ("smd/test", 304, 1_625),
        ("swda/test", 19, 4_078),
    ],
)
def test_real_dialogues(name: str, dialogues: int, utterances: int, tmp_path: Path) -> None:
    path = corpus_file(f"{name}.jsonl")
    tokenizer = Tokenizer.train(texts_of(path, config()), "words", 10_000)
    corpus = Corpus.build(
        path, tokenizer, label_columns={"act": None}, cache=tmp_path, context_turns=9
    )
    assert (corpus.report.dialogues, len(corpus)) == (dialogues, utterances)
    assert corpus.contexts is not None
    assert int((corpus.contexts.turns == 0).sum()) == dialogues
    batch = next(BucketedBatches(corpus, 64).epoch(0))
    assert batch.context is not None
    assert batch.context.rows.shape[1] <= 9
    assert (batch.context.same_speaker[batch.context.mask] >= 0).all()
    if utterances < 10_000:
        found = check(path, "words", context_turns=9).dialogues
        assert found is not None
        assert (found.dialogues, found.responses) == (dialogues, utterances)
        assert found.longer_contexts == corpus.report.cut_contexts
