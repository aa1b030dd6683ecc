"""What a corpus file holds, and what is wrong with it, before a model is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from uncollapse.data.dialogue_check import DialogueCounts, DialogueReport
from uncollapse.data.rows import Row
from uncollapse.data.sources import Rows, read_rows
from uncollapse.data.tokenizer import UNK, Kind, Tokenizer
from uncollapse.errors import UserError

_CHUNK = 8192  # rows looked at together
_LINES_NAMED = 5  # line numbers listed per complaint


@dataclass
class CheckReport:
    """What :func:`check` found. Lengths are in tokens, without ``<s>`` and ``</s>``.

    Attributes
    ----------
    source, format : str
    columns : list of str
    sentences, tokens : int
        Empty rows are not counted.
    vocabulary_size : int
        Of the tokenizer, its 4 special tokens counted.
    distinct_tokens : int
        Tokens of the vocabulary that occur here.
    vocabulary_from : str
        The source that the vocabulary was learnt from.
    unknown_rate : float
        Share of the tokens that are the unknown word.
    length : dict
        ``min``, ``mean``, ``median``, ``p95``, ``max``.
    empty, too_long : int
        Rows without a word; sentences longer than the maximum length asked about.
    empty_lines, too_long_lines : list of int
        The first of them.
    duplicates : int
        Sentences that repeat an earlier one of this source exactly.
    shared : dict
        For each other source, how many sentences here also occur there.
    labels : dict
        Sentences of each class; empty without a label column.
    missing_labels : int
    dialogues : DialogueReport or None
        What the dialogues are like; None for lone sentences.
    """

    source: str
    format: str
    vocabulary_size: int
    vocabulary_from: str
    columns: list[str] = field(default_factory=list)
    sentences: int = 0
    tokens: int = 0
    distinct_tokens: int = 0
    unknown_rate: float = 0.0
    length: dict[str, float] = field(default_factory=dict)
    empty: int = 0
    empty_lines: list[int] = field(default_factory=list)
    too_long: int = 0
    too_long_lines: list[int] = field(default_factory=list)
    duplicates: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    missing_labels: int = 0
    dialogues: DialogueReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_text(self) -> str:
        """A table for a person, one fact a line."""
        length = " · ".join(f"{name} {value:g}" for name, value in self.length.items())
        facts = [
            ("source", f"{self.source} ({self.format}; columns: {', '.join(self.columns)})"),
            ("sentences", f"{self.sentences:,}"),
            ("tokens", f"{self.tokens:,} ({self.distinct_tokens:,} distinct)"),
            ("vocabulary", f"{self.vocabulary_size:,} (from {self.vocabulary_from})"),
            ("unknown", f"{100 * self.unknown_rate:.2f} % of the tokens"),
            ("length", length),
            ("empty rows", _with_lines(self.empty, self.empty_lines)),
            ("too long", _with_lines(self.too_long, self.too_long_lines)),
            ("duplicates", f"{self.duplicates:,}"),
        ]
        if self.dialogues is not None:
            facts += self.dialogues.facts()
        facts += [
            (f"also in {Path(path).name}", f"{count:,}") for path, count in self.shared.items()
        ]
        facts += [(f"label {name}", f"{count:,}") for name, count in self.labels.items()]
        facts += [("no label", f"{self.missing_labels:,}")] if self.labels else []
        width = max(len(name) for name, _ in facts)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)


def check(
    source: str | Path,
    tokenizer_kind: Kind = "whitespace",
    text_column: str = "text",
    label_column: str | None = None,
    max_length: int | None = None,
    *,
    against: Sequence[str | Path] = (),
    train: str | Path | None = None,
    vocabulary_size: int | None = None,
    min_count: int = 1,
    unk_token: str = "<unk>",
    context_turns: int | None = None,
) -> CheckReport:
    """Read a source and report what it holds. Streams; memory: 16 bytes a sentence.

    Parameters
    ----------
    source, text_column
        See :class:`uncollapse.data.sources.Rows`.
    label_column : str or None
        Count the sentences of each class in it.
    tokenizer_kind, vocabulary_size, min_count, unk_token
        See :meth:`uncollapse.data.tokenizer.Tokenizer.train`.
    max_length : int or None
        Count longer sentences.
    against : sequence of sources
        Other splits; count the sentences that they share with this one.
    train : source or None
        Learn the vocabulary from it. None: from `source` itself.
    context_turns : int or None
        Count the sentences of dialogues that have more turns before them.

    Raises
    ------
    UserError
        For a source that cannot be read, naming file and line.
    """
    if max_length is not None and max_length < 1:
        raise UserError(f"max_length must be at least 1, not {max_length}")
    if context_turns is not None and context_turns < 0:
        raise UserError(f"context_turns must not be negative, but is {context_turns}")
    learnt_from = source if train is None else train
    texts = (row.text for row in read_rows(learnt_from, text_column))
    tokenizer = Tokenizer.train(texts, tokenizer_kind, vocabulary_size, min_count, unk_token)
    rows = Rows(source, text_column, [] if label_column is None else [label_column])
    report = CheckReport(rows.source, rows.format, len(tokenizer), str(learnt_from))
    seen = np.zeros(len(tokenizer), bool)
    histogram = np.zeros(0, np.int64)  # sentences of each length
    hashes: list[np.ndarray] = []
    labels: Counter[str] = Counter()
    unknown = 0
    dialogues = DialogueCounts()
    for lines, found in _chunks(rows):
        texts = [row.text for row in found]
        ids, lengths = tokenizer.encode_flat(texts)
        empty = lengths == 0
        if rows.dialogues:
            dialogues.add(found, ~empty)
        report.empty += _note(lines[empty], report.empty_lines)
        if max_length is not None:
            report.too_long += _note(lines[lengths > max_length], report.too_long_lines)
        seen[ids] = True
        unknown += int(np.count_nonzero(ids == UNK))
        histogram = _add(histogram, np.bincount(lengths[~empty]))
        hashes.append(_hashes(texts)[~empty])
        if rows.label_columns:
            kept = [
                row.labels[0]
                for row, dropped in zip(found, empty, strict=True)
                if row.response and not dropped
            ]
            labels.update(name for name in kept if name is not None)
            report.missing_labels += kept.count(None)
    report.columns = rows.columns
    report.sentences = int(histogram.sum())
    if not report.sentences:
        raise UserError(f"{source} has no sentence with a word in it")
    report.tokens = int(histogram @ np.arange(len(histogram)))
    report.distinct_tokens = int(seen.sum())
    report.unknown_rate = unknown / report.tokens
    report.length = _quantiles(histogram)
    report.dialogues = dialogues.report(context_turns) if rows.dialogues else None
    report.labels = dict(sorted(labels.items()))
    own = _sorted(hashes)
    report.duplicates = int(np.count_nonzero(own[1:] == own[:-1]))
    for other in against:
        there = _sorted([_hashes(texts) for texts in _texts(Rows(other, text_column))])
        report.shared[str(other)] = _count_shared(own, there)
    return report


def _chunks(rows: Rows) -> Iterator[tuple[np.ndarray, list[Row]]]:
    """Line numbers and rows, some thousand at a time."""
    numbered = ((rows.line, row) for row in rows)
    while chunk := list(islice(numbered, _CHUNK)):
        yield np.array([line for line, _ in chunk]), [row for _, row in chunk]


def _hashes(texts: list[str]) -> np.ndarray:
    """A 64-bit hash of each text; among 10 million a chance collision has odds of 3 in 10^6."""
    # Python salts `hash` anew in every process, so these never leave this one.
    return np.fromiter((hash(text.strip()) for text in texts), np.int64, count=len(texts))


def _texts(rows: Rows) -> Iterator[list[str]]:
    return ([row.text for row in found] for _, found in _chunks(rows))


def _sorted(hashes: list[np.ndarray]) -> np.ndarray:
    """All of them in one array; the list is emptied, as there may be many."""
    joined = np.concatenate(hashes)
    hashes.clear()
    joined.sort()
    return joined


def _count_shared(own: np.ndarray, there: np.ndarray) -> int:
    """How many of the first are among the second, which are sorted."""
    shared = 0
    for first in range(0, len(own), _CHUNK):
        some = own[first : first + _CHUNK]
        places = np.searchsorted(there, some).clip(max=len(there) - 1)
        shared += int(np.count_nonzero(there[places] == some))
    return shared


def _note(lines: np.ndarray, noted: list[int]) -> int:
    """Keep the first few line numbers; return how many there are."""
    noted += lines[: _LINES_NAMED - len(noted)].tolist()
    return len(lines)


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    longer[: len(shorter)] += shorter
    return longer


def _quantiles(histogram: np.ndarray) -> dict[str, float]:
    """Exact quantiles (the smallest length that reaches the share) of a length histogram."""
    total = histogram.sum()
    cumulated = np.cumsum(histogram)
    present = np.flatnonzero(histogram)
    return {
        "min": int(present[0]),
        "mean": round(float(histogram @ np.arange(len(histogram)) / total), 2),
        "median": int(np.searchsorted(cumulated, 0.5 * total)),
        "p95": int(np.searchsorted(cumulated, 0.95 * total)),
        "max": int(present[-1]),
    }


def _with_lines(count: int, lines: list[int]) -> str:
    if not count:
        return "0"
    more = ", …" if count > len(lines) else ""
    return f"{count:,} (line {', '.join(map(str, lines))}{more})"
