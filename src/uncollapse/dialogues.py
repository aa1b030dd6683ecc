"""Dialogues that wait for an answer: what was said so far, and who answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uncollapse.config import Recipe
from uncollapse.data.rows import Row, label_name
from uncollapse.errors import UserError, unknown_name
from uncollapse.loading import Data, available_columns, rows_of
from uncollapse.loading import Dialogue as Turns

Dialogue = Turns | Mapping[str, Any]  # turns, or these and what else is known


@dataclass(frozen=True)
class OpenDialogue:
    """A dialogue in which somebody is to answer.

    Attributes
    ----------
    name : str
        What an error calls it.
    turns : sequence of str or mapping
        What was said, oldest first: texts, or mappings such as ``{"speaker": …, "text": …}``.
    speaker : str or None
        Who answers; None: unknown.
    labels : mapping
        What else is known, such as the topic, by column.
    """

    name: str
    turns: Turns
    speaker: str | None
    labels: Mapping[str, Any]

    @classmethod
    def of(cls, given: Dialogue, name: str) -> OpenDialogue:
        """Take what a person gives: turns, or ``{"turns": […], "speaker": …}``.

        Without a speaker, whoever of exactly two did not speak last answers.

        Raises
        ------
        UserError
            For what is no dialogue; the turns themselves are not looked at.
        """
        labels: Mapping[str, Any] = {}
        turns: Any = given
        speaker = None
        if isinstance(given, Mapping):
            if "turns" not in given:
                keys = ", ".join(map(str, given)) or "none"
                raise UserError(f"{name} has no 'turns' (keys: {keys})")
            turns, labels = given["turns"], given
            try:
                speaker = label_name(given.get("speaker"))
            except TypeError as error:
                raise UserError(f"{name}: 'speaker' {error}") from None
        if isinstance(turns, str | Mapping) or not isinstance(turns, Sequence):
            raise UserError(f"{name} must be a list of turns, not {type(turns).__name__}")
        return cls(name, turns, _answerer(turns) if speaker is None else speaker, labels)

    @classmethod
    def list_of(cls, given: Sequence[Dialogue]) -> list[OpenDialogue]:
        """Take several dialogues; errors as for `of`."""
        if isinstance(given, str | Mapping):
            raise UserError("dialogues must be a list of lists of turns")
        return [cls.of(one, f"dialogue {number}") for number, one in enumerate(given, 1)]

    def number(self, column: str, classes: Sequence[str]) -> int:
        """Which of some classes the dialogue has in a column; −1 if none.

        Raises
        ------
        UserError
            For another class.
        """
        try:
            label = label_name(self.labels.get(column))
        except TypeError as error:
            raise UserError(f"{self.name}: label {column!r} {error}") from None
        if label is None:
            return -1
        if label not in classes:
            fault = unknown_name(f"class in column {column!r}:", label, classes)
            raise UserError(f"{self.name}: {fault}")
        return list(classes).index(label)


def read_dialogues(data: Data, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Read dialogues to be answered: after all of the turns, or after a ``context``.

    Parameters
    ----------
    data : path, hub data set name or sequence of mappings
        With ``turns``, or with ``context`` and ``response``; what the response says does not
        matter.
    recipe : Recipe
        Of the model that answers.

    Yields
    ------
    dict
        ``{"turns": […], "speaker": …}`` as `TextVAE.respond` takes it, and the columns of the
        condition's features; of ``turns``, those that all of them share.

    Raises
    ------
    UserError
        For a faulty source, or one without dialogues.
    """
    features = () if recipe.condition is None else recipe.condition.features
    columns = available_columns(data, recipe.data, [part.column for part in features])
    rows = rows_of(data, recipe.data.text_column, columns)
    dialogue: list[Row] = []
    for row in rows:
        if rows.kind == "text":
            raise UserError(
                f"{rows.source} has sentences and no dialogues to answer in: it lacks 'turns', "
                "or 'context' and 'response'"
            )
        if row.turn == 0 and dialogue:
            yield _asked(dialogue, rows.kind, columns)
            dialogue = []
        dialogue.append(row)
    if dialogue:
        yield _asked(dialogue, rows.kind, columns)


def _asked(rows: Sequence[Row], kind: str, columns: Sequence[str]) -> dict[str, Any]:
    """The dialogue of some rows, which are all of it."""
    labels: Sequence[str | None] = rows[-1].labels
    speaker = None
    if kind == "response":
        speaker, rows = rows[-1].speaker, rows[:-1]
    else:
        by_column = zip(*(row.labels for row in rows), strict=True)
        labels = [own[0] if len(set(own)) == 1 else None for own in by_column]
    turns = [
        {"speaker": row.speaker, "text": row.text} if row.speaker else row.text
        for row in rows
        if row.text.strip()
    ]
    return {"turns": turns, "speaker": speaker, **dict(zip(columns, labels, strict=True))}


def _answerer(turns: Turns) -> str | None:
    """The one of two speakers who did not speak last; None if there are not two, or unknown."""
    names = [_speaker(turn) for turn in turns]
    known = {name for name in names if name is not None}
    if len(known) != 2 or names[-1] is None:
        return None
    (other,) = known - {names[-1]}
    return other


def _speaker(turn: Any) -> str | None:
    try:
        return label_name(turn.get("speaker")) if isinstance(turn, Mapping) else None
    except TypeError:
        return None  # said with the number of the turn, when it is read
