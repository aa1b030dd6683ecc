"""Rows of text to arrays of token ids, a chunk at a time, with a report of what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uncollapse.data.places import Places, Turns
from uncollapse.data.rows import Chunk
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.errors import UserError, unknown_name

CHUNK = 8192  # sentences encoded at once: large enough for speed, small enough for memory


@dataclass
class CorpusReport:
    """What reading a corpus did, so that nothing is dropped silently.

    Attributes
    ----------
    sentences, tokens : int
        What was kept; ``<s>`` and ``</s>`` are not counted.
    empty : int
        Rows without a word; dropped.
    cut : int
        Sentences longer than ``max_length``; their ends are cut off.
    unknown : int
        Tokens that are the unknown word.
    dialogues : int
        Dialogues that the sentences are from; 0 where they are from none.
    context_turns : int
        Turns before a sentence that are its context, over all sentences.
    longest_context : int
        Most turns that are before a sentence, whether they are context or too long ago.
    cut_contexts : int
        Sentences with more turns before them than are context.
    """

    sentences: int = 0
    tokens: int = 0
    empty: int = 0
    cut: int = 0
    unknown: int = 0
    dialogues: int = 0
    context_turns: int = 0
    longest_context: int = 0
    cut_contexts: int = 0

    def without(self, part: CorpusReport) -> CorpusReport:
        """That of the rest; what was dropped or cut stays that of the whole."""
        names = ("sentences", "tokens", "unknown", "dialogues", "context_turns")
        rest = {name: getattr(self, name) - getattr(part, name) for name in names}
        return replace(self, **rest)

    def summary(self) -> str:
        """One line for a person; leaves out what did not happen."""
        share = 100 * self.unknown / max(self.tokens, 1)
        parts = [f"{self.sentences:,} sentences, {self.tokens:,} tokens ({share:.2f} % unknown)"]
        parts += [f"{self.dialogues:,} dialogues"] if self.dialogues else []
        if self.context_turns:
            mean = self.context_turns / self.sentences
            parts += [f"{mean:.2f} turns of context on average"]
        parts += [f"{self.empty:,} empty rows dropped"] if self.empty else []
        parts += [f"{self.cut:,} sentences cut to the maximum length"] if self.cut else []
        return "; ".join(parts)


@dataclass(frozen=True)
class LabelColumn:
    """The classes of N sentences in one column of labels.

    Attributes
    ----------
    ids : (N,) int32
        Class of each sentence, -1 where missing.
    names : list of str
        Name of each class.
    """

    ids: np.ndarray
    names: list[str]

    def __getitem__(self, rows: np.ndarray | slice) -> LabelColumn:
        return LabelColumn(self.ids[rows], self.names)

    @property
    def labelled(self) -> int:
        """Sentences that have a label."""
        return int(np.count_nonzero(self.ids >= 0))

    def summary(self) -> str:
        """Say for a person how many sentences have a label, and of how many classes."""
        counts = f"{self.labelled:,} of {len(self.ids):,} labelled"
        return f"{counts}, {len(self.names):,} class{'' if len(self.names) == 1 else 'es'}"


@dataclass(frozen=True)
class Piece:
    """Some rows as token ids, those without a word left out.

    Attributes
    ----------
    tokens : (sum of lengths,) uint16 or uint32
    lengths : (rows,) int64
    labels : dict of str to (rows,) int32
        By column, the classes in the order in which they came, see `Encoder.classes`.
    turns : Turns or None
        None: lone sentences.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    labels: dict[str, np.ndarray]
    turns: Turns | None


@dataclass(frozen=True)
class Encoded:
    """Utterances as token ids, and all that is known of them.

    Attributes
    ----------
    tokens, offsets, columns, report
        Those of a `Corpus` of all utterances.
    turns : Turns or None
        Where they stand in their dialogues; None: they are lone sentences.
    entry : Path or None
        The folder that the arrays are mapped from; None: they are in memory.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    columns: dict[str, LabelColumn]
    turns: Turns | None
    report: CorpusReport
    entry: Path | None = None

    @classmethod
    def joined(cls, pieces: Sequence[Piece], encoder: Encoder) -> Encoded:
        """In memory: all pieces that an encoder has yielded, of which there must be one."""
        offsets = np.zeros(encoder.report.sentences + 1, np.int64)
        np.cumsum(np.concatenate([piece.lengths for piece in pieces]), out=offsets[1:])
        columns = {
            column: LabelColumn(places[np.concatenate([p.labels[column] for p in pieces])], names)
            for column, (names, places) in encoder.classes().items()
        }
        tokens = np.concatenate([piece.tokens for piece in pieces])
        parts = [piece.turns for piece in pieces if piece.turns is not None]
        turns = Turns.joined(parts) if parts else None
        return cls(tokens, offsets, columns, turns, encoder.report)


class _Numbers(dict[str | None, int]):
    """Class name to number; numbers new names as they come unless the names are given."""

    def __init__(self, column: str, names: list[str] | None) -> None:
        super().__init__({name: i for i, name in enumerate(names or [])})
        if len(self) != len(names or []):
            listed = ", ".join(names or [])
            raise UserError(f"classes of column {column!r} must differ from one another: {listed}")
        self[None] = -1
        self.names = names

    def __missing__(self, name: str | None) -> int:
        if self.names is not None:
            raise KeyError(name)
        self[name] = len(self) - 1  # None is in there too
        return self[name]

    def classes(self) -> tuple[list[str], np.ndarray]:
        """Names in their order, and for each number so far, and -1, the place of its name."""
        if self.names is not None:
            return self.names, np.array([*range(len(self.names)), -1], np.int32)
        by_number = [name for name in self if name is not None]
        numeric = all(name.isdecimal() for name in by_number)
        names = sorted(by_number, key=lambda name: (int(name) if numeric else 0, name))
        place = {name: i for i, name in enumerate(names)}
        # Numbers were given as the names came; -1 picks the last entry, which stays -1.
        return names, np.array([*(place[name] for name in by_number), -1], np.int32)


def cut(
    tokens: np.ndarray, lengths: np.ndarray, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Leave the first `limit` tokens of each sentence; all of them for None."""
    if limit is None or not np.any(lengths > limit):
        return tokens, lengths
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(tokens)) - np.repeat(starts, lengths)  # of a token in its sentence
    return tokens[place < limit], np.minimum(lengths, limit)


class Encoder:
    """Rows to arrays of ids, a chunk at a time; keeps the report and the names of classes.

    Parameters
    ----------
    source : str
        What an error calls the rows.
    tokenizer : Tokenizer
    label_columns : mapping
        Name of each label of a row, in their order, to its classes; None: those that occur.
    max_length : int or None
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        label_columns: Mapping[str, list[str] | None],
        max_length: int | None,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise UserError(f"max_length must be at least 1, not {max_length}")
        self.report = CorpusReport()
        self._source = source
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._dtype = np.dtype("<u2" if len(tokenizer) <= 1 << 16 else "<u4")
        self._numbers = {name: _Numbers(name, known) for name, known in label_columns.items()}
        self._places = Places()

    def encode(self, chunks: Iterable[Chunk]) -> Iterator[Piece]:
        """Yield every chunk of rows as a piece; sentences without a word are gone."""
        for chunk in chunks:
            tokens, lengths = self._tokenizer.encode_flat(chunk.texts)
            if self._max_length is not None:
                self.report.cut += int(np.count_nonzero(lengths > self._max_length))
                tokens, lengths = cut(tokens, lengths, self._max_length)
            kept = lengths > 0
            labels = self._number(chunk, kept)
            turns = self._places.add(chunk, kept)
            self.report.empty += len(kept) - int(np.count_nonzero(kept))
            self.report.sentences += int(np.count_nonzero(kept))
            self.report.tokens += len(tokens)
            self.report.unknown += int(np.count_nonzero(tokens == UNK))
            yield Piece(tokens.astype(self._dtype), lengths[kept], labels, turns)

    def _number(self, chunk: Chunk, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Number the labels of a chunk, those of dropped rows left out."""
        numbered = {}
        for place, (column, numbers) in enumerate(self._numbers.items()):
            # a class of dropped rows alone is no class of the corpus
            rows = zip(chunk.labels, kept, strict=True)
            names = [row[place] if keep else None for row, keep in rows]
            try:
                ids = np.fromiter(map(numbers.__getitem__, names), np.int32, count=len(names))
            except KeyError as missing:
                (name,) = missing.args
                before = self.report.sentences + self.report.empty
                at = self._places.name(chunk, names.index(name), before)
                fault = unknown_name(f"class in column {column!r}:", name, numbers.names or [])
                raise UserError(f"{self._source}, {at}: {fault}") from None
            numbered[column] = ids[kept]
        return numbered

    def require_sentences(self) -> None:
        """Refuse rows of which none has a word."""
        if not self.report.sentences or not self._places.any_response:
            raise UserError(f"{self._source} has no sentence with a word in it")

    def classes(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """By column, the names of classes and what renumbers the labels of all pieces so far."""
        return {name: numbers.classes() for name, numbers in self._numbers.items()}
