"""Whatever a user calls data, a source or a list of sentences, as texts or as a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from uncollapse.config import DataConfig
from uncollapse.data.corpus import Corpus
from uncollapse.data.records import IN_MEMORY, Records, Sentence, Sentences
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError

Data = str | Path | Sequence[Sentence]


def rows_of(data: Data, text_column: str, label_columns: Sequence[str] = ()) -> Records:
    """The rows ``(text, labels)`` of a source or of sentences in memory, read as a stream.

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
    """The sentences, one after the other.

    Raises
    ------
    UserError
        For a faulty source, naming file and line, or a sentence that is not text.
    """
    return (text for text, _ in rows_of(data, config.text_column))


def learn_tokenizer(data: Data, config: DataConfig) -> Tokenizer:
    """Learn a tokeniser from training sentences, as a recipe asks."""
    return Tokenizer.train(
        texts_of(data, config),
        config.tokenizer,
        config.vocabulary_size,
        config.min_count,
        config.unk_token,
    )


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
        A sequence has texts or mappings such as ``{"text": …, "emotion": …}``.
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
        )
    rows = list(rows_of(data, config.text_column, wanted))
    if keep_rows:
        for number, (text, _) in enumerate(rows, 1):
            if not tokenizer.encode(text):
                raise UserError(f"sentence {number} is empty")
    return Corpus.from_texts(
        [text for text, _ in rows],
        tokenizer,
        labels={name: [labels[place] for _, labels in rows] for place, name in enumerate(wanted)},
        classes=classes,
        max_length=config.max_length,
        source=str(data) if is_source else IN_MEMORY,
    )
