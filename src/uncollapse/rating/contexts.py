"""Contexts of a study: picked at random from dialogues, as people see and systems take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from uncollapse.errors import UserError
from uncollapse.rating.key import Context, Turn

if TYPE_CHECKING:
    from uncollapse.config import Recipe
    from uncollapse.loading import Data


def pick_contexts(
    data: Data, recipes: Sequence[Recipe], count: int, chance: Random
) -> list[Context]:
    """Pick different contexts, with as many turns as the system that reads most of them.

    Raises
    ------
    UserError
        For a faulty source, one with fewer contexts, or systems that read none.
    """
    window = max(recipe.data.context_turns for recipe in recipes)
    if not window:
        raise UserError("none of the runs reads a context: their recipes have no condition")
    features = [recipe.condition.features for recipe in recipes if recipe.condition is not None]
    columns = list(dict.fromkeys(feature.column for some in features for feature in some))
    found: dict[tuple[Turn, ...], Context] = {}
    for context in _contexts(data, recipes[0], columns, window):
        found.setdefault(tuple(context.turns), context)  # people greet each other all the time
    if len(found) < count:
        different = f"{len(found):,} different contexts" if found else "no turn with a context"
        raise UserError(f"the data has {different}, but {count:,} are to be picked")
    return chance.sample(list(found.values()), count)


def _contexts(data: Data, recipe: Recipe, columns: Sequence[str], window: int) -> Iterator[Context]:
    """What was said before each turn that is a response and has something before it."""
    from uncollapse.loading import available_columns, rows_of

    known = available_columns(data, recipe.data, columns)
    before: list[Turn] = []
    for row in rows_of(data, recipe.data.text_column, known):
        if row.turn == 0:
            before = []
        text = one_line(row.text)
        if not text:
            continue
        speaker = one_line(row.speaker or "")
        if row.response and before:
            labels = {
                column: label
                for column, label in zip(known, row.labels, strict=True)
                if label is not None
            }
            yield Context(turns=before[-window:], answerer=speaker, labels=labels)
        before.append(Turn(speaker=speaker, text=text))


def given_contexts(contexts: Sequence[Context]) -> list[dict[str, Any]]:
    """Contexts as `TextVAE.respond` takes them."""
    return [
        {
            "turns": [
                {"speaker": turn.speaker, "text": turn.text} if turn.speaker else turn.text
                for turn in context.turns
            ],
            "speaker": context.answerer or None,
            **context.labels,
        }
        for context in contexts
    ]


def one_line(text: str) -> str:
    """A text without line breaks, and with single spaces."""
    return " ".join(text.split())
