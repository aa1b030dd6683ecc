"""Records, mappings of columns, as rows of text and labels; and those that are in memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from uncollapse.errors import UserError

Row = tuple[str, tuple[str | None, ...]]
Sentence = str | Mapping[str, Any]

IN_MEMORY = "the list of sentences"  # what an error calls data without a file


class Records(ABC):
    """Rows ``(text, labels)`` that are read as a stream, and what can be wrong with them.

    Parameters
    ----------
    source : str
        Where they are from.
    text_column : str
        Where the text is.
    label_columns : sequence of str
        Where class labels are, as far as they are wanted; a row has its labels in this order.
        Numbers become names (``"0"``, ``"1"``); null and empty labels become None.

    Attributes
    ----------
    format : str
    columns : list of str
        The columns met so far.
    line : int
        Number of the row that was read last, from 1.
    """

    format: str

    def __init__(self, source: str, text_column: str, label_columns: Sequence[str]) -> None:
        self.source = source
        self.text_column = text_column
        self.label_columns = tuple(dict.fromkeys(label_columns))
        self.columns: list[str] = []
        self.line = 0
        self._unlabelled: tuple[None, ...] = (None,) * len(self.label_columns)

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Read all rows."""

    @abstractmethod
    def _place(self) -> str:
        """What an error calls the row that was read last."""

    def _meet(self, record: Mapping[str, Any]) -> Row:
        """The row of a record that has columns of its own."""
        if not record.keys() <= set(self.columns):
            self.columns = list(dict.fromkeys([*self.columns, *record]))
        if self.text_column not in record:
            raise self._no_column(self.text_column, record, self._place())
        return self._row(record)

    def _require_labels(self) -> None:
        """A label may be left out here and there; one that is nowhere is a wrong name."""
        for column in self.label_columns:
            if column not in self.columns:
                raise self._no_column(column, self.columns, self.source)

    def _row(self, record: Mapping[str, Any]) -> Row:
        text = record[self.text_column]
        if not isinstance(text, str):
            kind = "null" if text is None else type(text).__name__
            raise self._fault(f"column {self.text_column!r} must be a string, not {kind}")
        self._require_characters(text)
        return text, tuple(self._label(record.get(name), name) for name in self.label_columns)

    def _require_characters(self, text: str) -> None:
        if text.isascii():
            return
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can spell out half a character: "\ud800"
            raise self._fault("the text has a lone surrogate, which is no character") from None

    def _label(self, value: Any, column: str) -> str | None:
        try:
            return label_name(value)
        except TypeError as error:
            raise self._fault(f"label {column!r} {error}") from None

    def _position(self, column: str) -> int:
        if column not in self.columns:
            raise self._no_column(column, self.columns, self.source)
        return self.columns.index(column)

    def _fault(self, what: str) -> UserError:
        return UserError(f"{self._place()}: {what}")

    def _no_column(self, column: str, columns: Iterable[str], place: str) -> UserError:
        columns = [str(name) for name in columns]
        close = get_close_matches(column, columns, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return UserError(f"{place}: no column {column!r}{hint} (columns: {', '.join(columns)})")


class Sentences(Records):
    """Rows in memory: texts without labels, or mappings such as ``{"text": …, "emotion": …}``.

    Raises
    ------
    UserError
        While iterating, for what is no row, naming its number; at the end for a label column
        that no row has.
    """

    format = "list"

    def __init__(
        self,
        sentences: Iterable[Sentence],
        text_column: str = "text",
        label_columns: Sequence[str] = (),
    ) -> None:
        super().__init__(IN_MEMORY, text_column, label_columns)
        if isinstance(sentences, Mapping):
            raise UserError("data must be a list of sentences, not a mapping; give one a sentence")
        self._sentences = sentences

    def __iter__(self) -> Iterator[Row]:
        self.line = 0
        for sentence in self._sentences:
            self.line += 1
            if isinstance(sentence, str):
                self._require_characters(sentence)
                yield sentence, self._unlabelled
            elif isinstance(sentence, Mapping):
                yield self._meet(sentence)
            else:
                raise UserError(f"{self._place()} is not text: {sentence!r}")
        if self.columns:
            self._require_labels()
        elif self.line and self.label_columns:
            keys = ", ".join(f'"{name}": …' for name in (self.text_column, *self.label_columns))
            wanted = ", ".join(self.label_columns)
            raise UserError(f"sentences without labels ({wanted}); give each as {{{keys}}}")

    def _place(self) -> str:
        return f"sentence {self.line}"


def label_name(value: Any) -> str | None:
    """Name of a class; None for one that is missing.

    Raises
    ------
    TypeError
        If it is neither a string nor a number.
    """
    if isinstance(value, str):
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            return None
        # a column of integers with gaps often arrives as floats
        return str(int(number)) if number.is_integer() else str(number)
    raise TypeError(f"must be a string or a number, not {type(value).__name__}")
