"""Rows of text to arrays of token ids, a chunk at a time, with a report of what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from uncollapse.data.sources import Row
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.errors import UserError, unknown_name

_CHUNK = 8192  # sentences encoded at once: large enough for speed, small enough for memory


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
    missing_labels : int
        Kept sentences without a label (0 for a corpus that has no labels).
    """

    sentences: int = 0
    tokens: int = 0
    empty: int = 0
    cut: int = 0
    unknown: int = 0
    missing_labels: int = 0

    def summary(self) -> str:
        """One line for a person; leaves out what did not happen."""
        share = 100 * self.unknown / max(self.tokens, 1)
        parts = [f"{self.sentences:,} sentences, {self.tokens:,} tokens ({share:.2f} % unknown)"]
        parts += [f"{self.empty:,} empty rows dropped"] if self.empty else []
        parts += [f"{self.cut:,} sentences cut to the maximum length"] if self.cut else []
        parts += [f"{self.missing_labels:,} without a label"] if self.missing_labels else []
        return "; ".join(parts)


class _LabelIds(dict[str | None, int]):
    """Label name to class number; numbers new names as they come unless the names are given."""

    def __init__(self, names: list[str] | None) -> None:
        super().__init__({name: i for i, name in enumerate(names or [])})
        if len(self) != len(names or []):
            raise UserError(f"label names must differ from one another: {', '.join(names or [])}")
        self[None] = -1
        self.names = names

    def __missing__(self, name: str | None) -> int:
        if self.names is not None:
            raise unknown_name("label", str(name), self.names)
        self[name] = len(self) - 1  # None is in there too
        return self[name]


class Encoder:
    """Rows to arrays of ids, a chunk at a time; keeps the report and the labels."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        labelled: bool,
        label_names: list[str] | None,
        max_length: int | None,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise UserError(f"max_length must be at least 1, not {max_length}")
        self.report = CorpusReport()
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._dtype = np.dtype("<u2" if len(tokenizer) <= 1 << 16 else "<u4")
        self._label_ids = _LabelIds(label_names) if labelled else None
        self._label_chunks: list[np.ndarray] = []

    def encode(self, rows: Iterable[Row]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (tokens, lengths) of every chunk of rows; sentences without a word are gone."""
        rows = iter(rows)
        while chunk := list(islice(rows, _CHUNK)):
            texts, names = zip(*chunk, strict=True)
            tokens, lengths = self._tokenizer.encode_flat(texts)
            tokens, lengths = self._cut(tokens, lengths)
            kept = lengths > 0
            if self._label_ids is not None:
                ids = map(self._label_ids.__getitem__, names)
                label_ids = np.fromiter(ids, np.int32, count=len(names))[kept]
                self._label_chunks.append(label_ids)
                self.report.missing_labels += int(np.count_nonzero(label_ids < 0))
            self.report.empty += len(chunk) - int(np.count_nonzero(kept))
            self.report.sentences += int(np.count_nonzero(kept))
            self.report.tokens += len(tokens)
            self.report.unknown += int(np.count_nonzero(tokens == UNK))
            yield tokens.astype(self._dtype), lengths[kept]

    def _cut(self, tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        limit = self._max_length
        if limit is None or not (too_long := int(np.count_nonzero(lengths > limit))):
            return tokens, lengths
        self.report.cut += too_long
        starts = np.cumsum(lengths) - lengths
        place = np.arange(len(tokens)) - np.repeat(starts, lengths)  # of a token in its sentence
        return tokens[place < limit], np.minimum(lengths, limit)

    def require_sentences(self, source: str) -> None:
        if not self.report.sentences:
            raise UserError(f"{source} has no sentence with a word in it")

    def labels(self) -> tuple[np.ndarray | None, list[str]]:
        """Class of every sentence so far, and the names of the classes."""
        if self._label_ids is None:
            return None, []
        found = np.concatenate([np.zeros(0, np.int32), *self._label_chunks])
        if self._label_ids.names is not None:
            return found, self._label_ids.names
        by_number = [name for name in self._label_ids if name is not None]
        numeric = all(name.isdecimal() for name in by_number)
        names = sorted(by_number, key=lambda name: (int(name) if numeric else 0, name))
        place = {name: i for i, name in enumerate(names)}
        # Numbers were given as the names came; -1 picks the last entry, which stays -1.
        renumber = np.array([*(place[name] for name in by_number), -1], np.int32)
        return renumber[found], names
