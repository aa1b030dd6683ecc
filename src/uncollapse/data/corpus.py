"""A corpus as token ids: memory-mapped from a cache on disk, or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from uncollapse.data.cache import encoded_once, without_once
from uncollapse.data.contexts import Contexts
from uncollapse.data.encoding import CHUNK, CorpusReport, Encoded, Encoder, LabelColumn
from uncollapse.data.permutation import random_order
from uncollapse.data.places import Turns
from uncollapse.data.records import Records
from uncollapse.data.rest import (
    chosen_tokens,
    count_unknown,
    held_out_rows,
    longest_of,
    rest_in_memory,
)
from uncollapse.data.rows import Chunk, label_name
from uncollapse.data.sentences import IN_MEMORY
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError

__all__ = ["Corpus", "CorpusReport", "LabelColumn"]

COPIED_BYTES = 1 << 25  # of tokens; of a larger corpus, what is not held out is kept on disk


class Corpus:
    """Token ids of N sentences, without ``<s>`` and ``</s>``.

    Use :meth:`build` or :meth:`from_texts`.

    Attributes
    ----------
    tokens : (sum of lengths,) uint16 or uint32
        All sentences, one after the other.
    offsets : (N + 1,) int64
        Sentence i is ``tokens[offsets[i]:offsets[i + 1]]``.
    columns : dict of str to LabelColumn
        The labels by column, in the order in which they were asked for.
    report : CorpusReport
    contexts : Contexts or None
        What was said before each sentence; None: lone sentences.
    dialogue : (N,) int32 or None
        Which dialogue each sentence is from; None: they are from none.
    entry : Path or None
        Folder of the cache that tokens, offsets and labels are mapped from; None: they are in
        memory, or a part of what is there.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        columns: Mapping[str, LabelColumn],
        report: CorpusReport,
        contexts: Contexts | None = None,
        dialogue: np.ndarray | None = None,
        entry: Path | None = None,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.columns = dict(columns)
        self.report = report
        self.contexts = contexts
        self.dialogue = dialogue
        self.entry = entry

    @classmethod
    def build(
        cls,
        source: str | Path,
        tokenizer: Tokenizer,
        *,
        text_column: str = "text",
        label_columns: Mapping[str, list[str] | None] | None = None,
        max_length: int | None = None,
        cache: Path | None = None,
        context_turns: int = 0,
    ) -> Corpus:
        """Encode a source in one streaming pass, or open what an earlier call has encoded.

        The cache is keyed by the content of the source and everything else that the result
        depends on. Processes that build the same corpus at once do not disturb each other.

        Parameters
        ----------
        source, text_column
            See :class:`uncollapse.data.sources.Rows`.
        tokenizer : Tokenizer
        label_columns : mapping, optional
            Columns of labels to read, each with its classes in order, or with None: those that
            occur, sorted (numbers by value).
        max_length : int or None
            Longer sentences keep their first `max_length` tokens.
        cache : Path or None
            None: environment variable ``UNCOLLAPSE_CACHE``, or else ``~/.cache/uncollapse``.
        context_turns : int
            Turns of a dialogue before each sentence that are its context; 0: lone sentences.

        Raises
        ------
        UserError
            For a faulty source, or a class that is not among those given for its column.
        RunError
            When the cache cannot be written, for example because the disk is full.
        """
        label_columns = dict(label_columns or {})
        rows = Rows(source, text_column, list(label_columns))
        encoder = Encoder(rows.source, tokenizer, label_columns, max_length)
        key = (tokenizer.fingerprint, text_column, max_length, list(label_columns.items()))
        return cls._of(encoded_once(rows, encoder, key, cache), context_turns)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        *,
        labels: Mapping[str, Sequence[str | int | None]] | None = None,
        classes: Mapping[str, list[str]] | None = None,
        max_length: int | None = None,
        source: str = IN_MEMORY,
        context_turns: int = 0,
    ) -> Corpus:
        """Encode texts in memory; errors as for :meth:`build`.

        Parameters
        ----------
        texts : sequence of str
        tokenizer : Tokenizer
        labels : mapping, optional
            By column, the label of each text; None where it is missing.
        classes : mapping, optional
            By column, its classes in order; those that occur where nothing is given.
        max_length : int or None
        source : str
            What an error calls the texts.
        context_turns : int
            Whether sentences have contexts, if only empty ones: none has a text before it.
        """
        labels = labels or {}
        for column, values in labels.items():
            if len(values) != len(texts):
                raise UserError(f"{len(texts)} texts, but {len(values)} labels {column!r}")
        known = {column: (classes or {}).get(column) for column in labels}
        names = [map(label_name, values) for values in labels.values()]
        rows = list(zip(*names, strict=True)) if names else [()] * len(texts)
        starts = range(0, len(texts), CHUNK)
        chunks = (Chunk(texts[i : i + CHUNK], rows[i : i + CHUNK]) for i in starts)
        return cls._encode(chunks, Encoder(source, tokenizer, known, max_length), context_turns)

    @classmethod
    def from_records(
        cls,
        records: Records,
        tokenizer: Tokenizer,
        *,
        classes: Mapping[str, list[str]] | None = None,
        max_length: int | None = None,
        context_turns: int = 0,
    ) -> Corpus:
        """Encode records in memory, with the label columns that they read; else as `build`."""
        known = {column: (classes or {}).get(column) for column in records.label_columns}
        encoder = Encoder(records.source, tokenizer, known, max_length)
        return cls._encode(records.chunks(CHUNK), encoder, context_turns)

    @classmethod
    def _encode(cls, rows: Iterable[Chunk], encoder: Encoder, context_turns: int) -> Corpus:
        pieces = list(encoder.encode(rows))
        encoder.require_sentences()
        return cls._of(Encoded.joined(pieces, encoder), context_turns)

    @classmethod
    def _of(cls, encoded: Encoded, context_turns: int) -> Corpus:
        """The utterances that respond, with the turns before them if these are wanted."""
        if context_turns < 0:
            raise UserError(f"context_turns must not be negative, but is {context_turns}")
        parts = encoded.tokens, encoded.offsets, encoded.columns, encoded.report
        corpus = cls(*parts, entry=encoded.entry)
        turns = encoded.turns
        if turns is None:  # lone sentences: each has an empty context
            if context_turns:
                alone = Turns.alone(len(corpus))
                corpus.contexts = Contexts.of(corpus.tokens, corpus.offsets, alone, context_turns)
            return corpus
        responses = np.flatnonzero(turns.response)
        if len(responses) < len(corpus):
            corpus = corpus.select(responses)
        corpus.dialogue = turns.dialogue[responses]
        dialogues = 1 + int(np.count_nonzero(np.diff(corpus.dialogue)))
        corpus.report = replace(corpus.report, dialogues=dialogues)
        if context_turns:
            before = turns.turn[responses]
            contexts = Contexts.of(encoded.tokens, encoded.offsets, turns, context_turns)
            corpus.contexts = contexts
            corpus.report = replace(
                corpus.report,
                context_turns=int(contexts.turns.sum()),
                longest_context=int(before.max()),
                cut_contexts=int(np.count_nonzero(before > context_turns)),
            )
        return corpus

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: words of each sentence, without ``<s>`` and ``</s>``."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Words of the longest sentence."""
        return longest_of(self.offsets)

    @property
    def label_ids(self) -> np.ndarray | None:
        """(N,) int32: classes in the first column of labels; None without one."""
        return next((column.ids for column in self.columns.values()), None)

    @property
    def label_names(self) -> list[str]:
        """Classes of the first column of labels; none without one."""
        return next((column.names for column in self.columns.values()), [])

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int64: class of each sentence, -1 where missing; a copy of ``label_ids``."""
        return None if self.label_ids is None else self.label_ids.astype(np.int64)

    def summary(self) -> str:
        """One line for a person: the report, and how many sentences have labels."""
        labels = [f"{name}: {column.summary()}" for name, column in self.columns.items()]
        return "; ".join([self.report.summary(), *labels])

    def sentence(self, i: int) -> np.ndarray:
        """Token ids of sentence i."""
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def select(self, rows: np.ndarray) -> Corpus:
        """The sentences of the given rows, in their order, copied into memory.

        The report counts the selection; what was dropped or cut stays that of the whole.
        """
        tokens, offsets = chosen_tokens(self.tokens, self.offsets, rows)
        return self._with(tokens, offsets, rows)

    def sample(self, most: int) -> Corpus:
        """At most so many sentences, drawn at random but always the same, in their order."""
        if len(self) <= most:
            return self
        order = random_order(len(self), np.random.SeedSequence(0))
        return self.select(np.sort(order[:most]).astype(np.int64))

    def hold_out(self, share: float, most: int) -> tuple[Corpus, Corpus]:
        """Split at random into the larger rest and a held-out part; always the same split.

        The rest is copied: into memory, or of a large corpus from the cache, into the cache.

        Dialogues are held out whole, so that no context of the rest has a held-out sentence. A
        row with a context of its own counts as one: where such rows were cut from longer
        dialogues, only their owner can tell which belong together.

        Parameters
        ----------
        share : float
            Of the sentences to hold out; at least one sentence, or dialogue, is.
        most : int
            Sentences to hold out at most, but for a single dialogue that has more.

        Raises
        ------
        UserError
            For fewer than two sentences, or dialogues.
        """
        rows = held_out_rows(len(self), self.dialogue, share, most)
        held_out = self.select(rows)
        return self._without(rows, held_out.report), held_out

    def _without(self, rows: np.ndarray, report: CorpusReport) -> Corpus:
        """All but some rows, ascending, of which a report is given."""
        kept = self.report.without(report)
        whole = Encoded(self.tokens, self.offsets, self.columns, None, self.report, self.entry)
        lone = self.contexts is None and self.dialogue is None
        if lone and self.entry is not None and self.tokens.nbytes > COPIED_BYTES:
            return self._of(without_once(whole, rows, kept), 0)
        parts = rest_in_memory(whole, rows)
        result = Corpus(parts.tokens, parts.offsets, parts.columns, kept)
        if not lone:
            others = np.delete(np.arange(len(self)), rows)
            result.contexts = None if self.contexts is None else self.contexts[others]
            result.dialogue = None if self.dialogue is None else self.dialogue[others]
        return result

    def head(self, n: int) -> Corpus:
        """The first n sentences (all, if there are fewer), without a copy.

        Its report counts its own sentences; what was dropped or cut stays that of the whole.
        """
        n = min(n, len(self))
        return self._with(self.tokens[: self.offsets[n]], self.offsets[: n + 1], slice(n))

    def _with(self, tokens: np.ndarray, offsets: np.ndarray, rows: np.ndarray | slice) -> Corpus:
        contexts = None if self.contexts is None else self.contexts[rows]
        dialogue = None if self.dialogue is None else self.dialogue[rows]
        report = replace(
            self.report,
            sentences=len(offsets) - 1,
            tokens=len(tokens),
            unknown=count_unknown(tokens),
            dialogues=0 if dialogue is None else len(np.unique(dialogue)),
            context_turns=0 if contexts is None else int(contexts.turns.sum()),
        )
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Corpus(tokens, offsets, columns, report, contexts, dialogue)
