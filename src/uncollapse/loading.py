"""Whatever a user calls data, a source or a list of sentences, as texts or as a corpus."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uncollapse.config import DataConfig
from uncollapse.data.contexts import ContextBatch, Contexts
from uncollapse.data.corpus import Corpus
from uncollapse.data.encoding import cut
from uncollapse.data.places import Places
from uncollapse.data.records import Records
from uncollapse.data.sentences import Sentence, Sentences
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.data.vocabularies import learned_once
from uncollapse.errors import UserError

Data = str | Path | Sequence[Sentence]
Dialogue = Sequence[str | Mapping[str, Any]]  # turns, oldest first


def rows_of(data: Data, text_column: str, label_columns: Sequence[str] = ()) -> Records:
    """The rows of a source or of sentences or dialogues in memory, read as a stream.

    Raises
    ------
    UserError
        For a source that does not exist; while reading, for a faulty one, naming file and line.
    """
    if isinstance(data, str | Path):
        return Rows(data, text_column, label_columns)
    return Sentences(data, text_column, label_columns)


def available_columns(data: Data, config: DataConfig, columns: Sequence[str]) -> list[str]:
    """Those of the columns that the data has; reads no farther than it must.

    Raises
    ------
    UserError
        For a faulty source.
    """
    rows = rows_of(data, config.text_column)
    if rows.format == "txt" or not columns:
        return []
    for _ in rows:
        # where every row has its own columns, one of them may come late
        if rows.format not in ("jsonl", "list") or set(columns) <= set(rows.columns):
            break
    return [column for column in columns if column in rows.columns]


def has_columns(data: Data) -> bool:
    """Whether labels can be in the data: not in a list of bare texts, for one."""
    if isinstance(data, str | Path):
        return Rows(data).format != "txt"
    return any(isinstance(sentence, Mapping) for sentence in data)


def texts_of(data: Data, config: DataConfig) -> Iterable[str]:
    """The sentences and, of dialogues, all turns, one after the other.

    Raises
    ------
    UserError
        For a faulty source, naming file and line, or a sentence that is not text.
    """
    return (row.text for row in rows_of(data, config.text_column))


def learn_tokenizer(data: Data, config: DataConfig) -> Tokenizer:
    """Learn a tokeniser from training sentences, as a recipe asks; of large sources once."""
    kind, size = config.tokenizer, config.vocabulary_size
    count, unknown = config.min_count, config.unk_token

    def learn() -> Tokenizer:
        return Tokenizer.train(texts_of(data, config), kind, size, count, unknown)

    rows = rows_of(data, config.text_column)
    settings = (config.text_column, kind, size, count, unknown)
    return learned_once(rows, settings, learn) if isinstance(rows, Rows) else learn()


def corpus_of(
    data: Data,
    tokenizer: Tokenizer,
    config: DataConfig,
    *,
    classes: Mapping[str, list[str]] | None = None,
    columns: Sequence[str] = (),
    keep_rows: bool = False,
) -> Corpus:
    """Encode sentences; sources are encoded once and then read from the cache.

    Parameters
    ----------
    data : path, hub data set name or sequence
        A sequence has texts or mappings such as ``{"text": …, "emotion": …}``, or dialogues,
        ``{"turns": [{"speaker": …, "text": …}, …]}``: each turn is a sentence, and the
        ``config.context_turns`` turns before it are its context.
    tokenizer : Tokenizer
    config : DataConfig
        Its column of labels is the first that is read, but for bare texts, which have none, and
        where rows must be kept.
    classes : mapping, optional
        The classes of columns, in order; those of columns that are not read do not matter.
    columns : sequence of str
        Further columns of labels, which the data must have.
    keep_rows : bool
        Insist that row i of the corpus is sentence i, as when vectors are returned for them.

    Raises
    ------
    UserError
        For a faulty source, a column that it lacks, a class that is not among those given, or an
        empty sentence where rows must be kept.
    """
    is_source = isinstance(data, str | Path)
    wanted = list(dict.fromkeys(columns))
    first = config.label_column
    if first is not None and not keep_rows and (is_source or has_columns(data)):
        wanted = [first, *(column for column in wanted if column != first)]
    classes = classes or {}
    if isinstance(data, str | Path) and not keep_rows:
        return Corpus.build(
            data,
            tokenizer,
            text_column=config.text_column,
            label_columns={column: classes.get(column) for column in wanted},
            max_length=config.max_length,
            context_turns=config.context_turns,
        )
    records = rows_of(data, config.text_column, wanted)
    if keep_rows:
        responses = (row for row in records if row.response)
        for number, row in enumerate(responses, 1):
            if not tokenizer.encode(row.text):
                raise UserError(f"sentence {number} is empty")
    return Corpus.from_records(
        records,
        tokenizer,
        classes=classes,
        max_length=config.max_length,
        context_turns=config.context_turns,
    )


def contexts_of(
    dialogues: Sequence[Dialogue],
    tokenizer: Tokenizer,
    config: DataConfig,
    speakers: Sequence[str | None] | None = None,
) -> ContextBatch:
    """Encode what was said, for somebody to answer.

    Parameters
    ----------
    dialogues : sequence of sequences
        Of each dialogue the turns so far, oldest first: texts, or mappings such as
        ``{"speaker": …, "text": …}``. The last ``config.context_turns`` that have a word count.
    tokenizer : Tokenizer
    config : DataConfig
    speakers : sequence of str or None, optional
        Who answers in each dialogue; None: unknown.

    Raises
    ------
    UserError
        For what is no dialogue, naming its number and the turn.
    """
    if isinstance(dialogues, str | Mapping):
        raise UserError("dialogues must be a list of lists of turns")
    if speakers is not None and len(speakers) != len(dialogues):
        raise UserError(f"{len(dialogues)} dialogues, but {len(speakers)} speakers")
    records = []
    for number, turns in enumerate(dialogues, 1):
        if isinstance(turns, str | Mapping) or not isinstance(turns, Sequence):
            kind = type(turns).__name__
            raise UserError(f"dialogue {number} must be a list of turns, not {kind}")
        speaker = None if speakers is None else speakers[number - 1]
        # the response is not there yet: a turn without a word holds its place
        records.append({"context": list(turns), "response": "", "speaker": speaker})
    if not records:
        raise UserError("there are no dialogues to answer in")
    (chunk,) = Sentences(records).chunks(sys.maxsize)
    tokens, lengths = cut(*tokenizer.encode_flat(chunk.texts), config.max_length)
    kept = (lengths > 0) | np.array(chunk.responses)
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    turns = Places().add(chunk, kept)
    assert turns is not None  # they are dialogues
    contexts = Contexts.of(tokens, offsets, turns, config.context_turns)
    return contexts.batch(np.arange(len(records)))
