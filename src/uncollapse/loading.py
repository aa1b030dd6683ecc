"""Whatever a user calls data, a source or a list of sentences, as texts or as a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from uncollapse.config import DataConfig
from uncollapse.data.corpus import Corpus
from uncollapse.data.sources import read_rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError

Data = str | Path | Sequence[str]


def texts_of(data: Data, config: DataConfig) -> Iterable[str]:
    """The sentences, one after the other.

    Raises
    ------
    UserError
        For a faulty source, naming file and line, or a sentence that is not text.
    """
    if isinstance(data, str | Path):
        return (text for text, _ in read_rows(data, config.text_column))
    for number, text in enumerate(data, 1):
        if not isinstance(text, str):
            raise UserError(f"sentence {number} is not text: {text!r}")
    return data


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
    data: Data, tokenizer: Tokenizer, config: DataConfig, *, keep_rows: bool = False
) -> Corpus:
    """Encode sentences; sources are encoded once and then read from the cache.

    Parameters
    ----------
    data : path, hub data set name or sequence of str
    tokenizer : Tokenizer
    config : DataConfig
    keep_rows : bool
        Insist that row i of the corpus is sentence i, as when vectors are returned for them.

    Raises
    ------
    UserError
        For a faulty source, or an empty sentence where rows must be kept.
    """
    if isinstance(data, str | Path) and not keep_rows:
        return Corpus.build(
            data,
            tokenizer,
            text_column=config.text_column,
            label_column=config.label_column,
            max_length=config.max_length,
        )
    texts = list(texts_of(data, config))
    if keep_rows:
        for number, text in enumerate(texts, 1):
            if not tokenizer.encode(text):
                raise UserError(f"sentence {number} is empty")
    return Corpus.from_texts(texts, tokenizer, max_length=config.max_length)
