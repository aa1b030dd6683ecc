"""Records, mappings of columns, as rows of text and labels.

A record is a sentence, a dialogue or a context with its response; a dialogue is a row a turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice, starmap
from typing import Any

from uncollapse.data.rows import Chunk, Row, joined, label_name
from uncollapse.errors import UserError

Fields = tuple[Any, ...]  # of a Row, or text and labels of a sentence: bare tuples cost less

END_OF_UTTERANCE = "__eou__"  # after each turn, where turns are written in one string
_RESERVED = ("turns", "context", "response", "speaker")  # columns that make a dialogue


class Records(ABC):
    """Rows that are read as a stream, and what can be wrong with them.

    A record with a text column is a sentence. One without it is a dialogue if it has ``turns``,
    a list of mappings with a text and, if known, a ``speaker``: every turn is a row, which has
    the turn's labels, or else the dialogue's. A record with a ``context``, a list of texts or
    such mappings or one string with ``__eou__`` between the turns, and a ``response`` is rows of
    context and a row that responds. All records of a source are of one kind.

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
        The columns met so far; of dialogues, those of the turns and of the whole.
    line : int
        Number of the record that was read last, from 1.
    """

    format: str

    def __init__(self, source: str, text_column: str, label_columns: Sequence[str]) -> None:
        self.source = source
        self.text_column = text_column
        self.label_columns = tuple(dict.fromkeys(label_columns))
        self.columns: list[str] = []
        self.line = 0
        self._turn = 0  # of a dialogue, from 1, while it is read
        self._kind: str | None = None
        self._known: set[str] = set()  # the columns met so far
        self._unlabelled: tuple[None, ...] = (None,) * len(self.label_columns)
        self._blank = Row("", self._unlabelled)

    def __iter__(self) -> Iterator[Row]:
        """Read all rows."""
        return starmap(Row, self._read())

    @property
    def dialogues(self) -> bool:
        """Whether the records read so far are dialogues, or contexts and responses."""
        return self.kind != "text"

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Read all rows, so many at a time and apart by field, which is faster."""
        rows = self._read()
        while chunk := list(islice(rows, size)):
            if self.dialogues:
                yield Chunk(*zip(*chunk, strict=True))
            else:
                yield Chunk([row[0] for row in chunk], [row[1] for row in chunk])

    @abstractmethod
    def _read(self) -> Iterator[Fields]:
        """Read the fields of all rows."""

    @property
    def kind(self) -> str:
        """What the records are, as far as any has been read: text, turns or response."""
        return self._kind or "text"

    @abstractmethod
    def _place(self) -> str:
        """What an error calls the record that was read last."""

    def _meet(self, record: Mapping[str, Any]) -> Iterable[Fields]:
        """The rows of a record that has columns of its own."""
        kind = self._kind_of(record)
        if kind == "text" and self.text_column not in record:
            raise self._no_column(self.text_column, record, self._place())
        self._require_kind(kind)
        if kind == "text":
            self._add_columns(record)
            return (self._row(record),)
        self._add_columns(self._columns_of_dialogue(record))
        return self._turns(record) if kind == "turns" else self._response(record)

    def _open_table(self, columns: Sequence[str]) -> bool:
        """Take in the columns of a table; whether its records are dialogues."""
        dialogues = self._kind_of(columns) != "text"
        self.columns = self._columns_of_dialogue(columns) if dialogues else list(columns)
        if "turns" in columns and dialogues:
            return True  # labels may be those of turns
        for column in (self.text_column, *self.label_columns):
            self._position(column)
        return dialogues

    def _columns_of_dialogue(self, columns: Iterable[str]) -> list[str]:
        return [self.text_column, *(name for name in columns if name not in _RESERVED)]

    def _kind_of(self, columns: Collection[str]) -> str:
        """The column that says what a record with these columns is."""
        if self.text_column in columns:
            return "text"
        if "turns" in columns:
            return "turns"
        return "response" if "response" in columns and "context" in columns else "text"

    def _require_kind(self, kind: str) -> None:
        """Refuse what is of another kind than the records before it."""
        if self._kind not in (None, kind):
            names = {"text": "a sentence", "turns": "a dialogue", "response": "a response"}
            before = {"text": "sentences", "turns": "dialogues", "response": "responses"}
            raise self._fault(f"{names[kind]} among {before[self._kind]}; data is one or the other")
        self._kind = kind

    def _add_columns(self, columns: Collection[str]) -> None:
        if not self._known.issuperset(columns):
            self.columns = list(dict.fromkeys([*self.columns, *columns]))
            self._known = set(self.columns)

    # -- dialogues ----------------------------------------------------------------------------

    def _turns(self, record: Mapping[str, Any]) -> Iterator[Fields]:
        """The rows of a dialogue; an empty one for a dialogue without turns."""
        turns = record["turns"]
        if not isinstance(turns, list | tuple):
            raise self._fault(f"'turns' must be a list, not {_kind_name(turns)}")
        if not turns:
            yield self._blank
        for place, turn in enumerate(turns):
            self._turn = place + 1
            text, speaker = self._spoken(turn)
            self._add_columns([name for name in turn if name not in _RESERVED])
            own = {name: turn.get(name) for name in self.label_columns}
            labels = {k: record.get(k) if label is None else label for k, label in own.items()}
            yield text, self._dialogue_labels(labels), place, speaker, True
        self._turn = 0

    def _response(self, record: Mapping[str, Any]) -> Iterator[Fields]:
        """The rows of a context, and the one that responds."""
        turns = self._context(record["context"])
        for place, turn in enumerate(turns):
            self._turn = place + 1
            text, speaker = (turn, None) if isinstance(turn, str) else self._spoken(turn)
            self._require_characters(text)
            yield text, self._unlabelled, place, speaker, False
        self._turn = 0
        text = self._text(record, "response")
        labels = self._dialogue_labels(record)
        yield text, labels, len(turns), self._speaker(record.get("speaker")), True

    def _context(self, context: Any) -> Sequence[Any]:
        if isinstance(context, str):
            turns = [turn.strip() for turn in context.split(END_OF_UTTERANCE)]
            return turns if turns[-1] else turns[:-1]
        if not isinstance(context, list | tuple):
            raise self._fault(f"'context' must be a list or a string, not {_kind_name(context)}")
        return context

    def _spoken(self, turn: Any) -> tuple[str, str | None]:
        """Text and speaker of a turn that is a mapping."""
        if not isinstance(turn, Mapping):
            raise self._fault(f"a turn must be a mapping with a text, not {_kind_name(turn)}")
        if self.text_column not in turn:
            raise self._no_column(self.text_column, turn, self._where())
        return self._text(turn, self.text_column), self._speaker(turn.get("speaker"))

    def _speaker(self, value: Any) -> str | None:
        try:
            return label_name(value)
        except TypeError as error:
            raise self._fault(f"'speaker' {error}") from None

    def _dialogue_labels(self, values: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Labels of a turn, which may have several of a kind, such as acts."""
        return tuple(self._label(joined(values.get(name)), name) for name in self.label_columns)

    # -- columns and values -------------------------------------------------------------------

    def _require_labels(self) -> None:
        """A label may be left out here and there; one that is nowhere is a wrong name."""
        for column in self.label_columns:
            if column not in self.columns:
                raise self._no_column(column, self.columns, self.source)

    def _row(self, record: Mapping[str, Any]) -> Fields:
        text = self._text(record, self.text_column)
        return text, tuple(self._label(record.get(name), name) for name in self.label_columns)

    def _text(self, record: Mapping[str, Any], column: str) -> str:
        text = record[column]
        if not isinstance(text, str):
            raise self._fault(f"column {column!r} must be a string, not {_kind_name(text)}")
        self._require_characters(text)
        return text

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
        return UserError(f"{self._where()}: {what}")

    def _where(self) -> str:
        return f"{self._place()}, turn {self._turn}" if self._turn else self._place()

    def _no_column(self, column: str, columns: Iterable[str], place: str) -> UserError:
        columns = [str(name) for name in columns]
        if column == self.text_column and not self._turn and _nearly_dialogues(columns):
            needed = "'turns', or 'context' and 'response'"
            found = ", ".join(columns)
            return UserError(f"{place}: dialogues need the columns {needed} (columns: {found})")
        close = get_close_matches(column, columns, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return UserError(f"{place}: no column {column!r}{hint} (columns: {', '.join(columns)})")


def _nearly_dialogues(columns: Iterable[str]) -> bool:
    """Whether columns are those of dialogues, but for one that is missing or its capitals."""
    return not {name.strip().lower() for name in columns}.isdisjoint(_RESERVED[:3])


def _kind_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
