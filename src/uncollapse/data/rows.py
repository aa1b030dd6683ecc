"""One sentence with its labels, and what tells where it stands in its dialogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One sentence, or one turn of a dialogue.

    Attributes
    ----------
    text : str
    labels : tuple of str or None
        One for each column of labels that was asked for.
    turn : int
        Place in its dialogue, from 0; whatever has none before it begins one.
    speaker : str or None
        Who speaks; None: unknown.
    response : bool
        False for a turn that is nothing but the context of those after it.
    """

    text: str
    labels: tuple[str | None, ...]
    turn: int = 0
    speaker: str | None = None
    response: bool = True


class Chunk(NamedTuple):
    """Some rows that follow one another, apart by field; see :class:`Row`.

    Attributes
    ----------
    texts, labels
    turns, speakers, responses
        None: lone sentences, which are no turns of anything.
    """

    texts: Sequence[str]
    labels: Sequence[tuple[str | None, ...]]
    turns: Sequence[int] | None = None
    speakers: Sequence[str | None] | None = None
    responses: Sequence[bool] | None = None


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


def joined(value: Any) -> Any:
    """Several labels as one, such as ``inform:poi+request:address``; none as a missing one."""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return "+".join(value)
    return value
