"""What people can rate, and how each criterion is put to them.

Fluency, relevance and informativeness are those of Zhu et al. (2020, table 5), quality and
consistency those of Shi et al. (2020, table 3).
"""

from __future__ import annotations

from collections.abc import Sequence

from uncollapse.errors import UserError, unknown_name

QUESTIONS = {
    "fluency": "Is the response, taken by itself, natural and grammatical?",
    "relevance": "Does the response fit what has been said before it?",
    "informativeness": "Does the response say something of its own, and not what fits anywhere?",
    "quality": "All in all, is this a good next thing to say?",
    "consistency": "Do these responses all do the same thing, whatever their words?",
}
CRITERIA = tuple(QUESTIONS)
OF_GROUPS = ("consistency",)  # of several responses together; all others are of a single one
SMALLEST_SCALE, LARGEST_SCALE = 2, 10  # as many as the digits of a keyboard can give


def check_criteria(criteria: Sequence[str]) -> list[str]:
    """The criteria, if there are such.

    Raises
    ------
    UserError
        For an unknown criterion, one that is there twice, or none at all.
    """
    if not criteria:
        raise UserError(f"there is no criterion; known: {', '.join(CRITERIA)}")
    for place, name in enumerate(criteria):
        if name not in CRITERIA:
            raise unknown_name("criterion", name, CRITERIA)
        if name in criteria[:place]:
            raise UserError(f"criterion {name!r} is there twice")
    return list(criteria)


def check_scale(scale: int) -> int:
    """The highest rating, if a scale can have it.

    Raises
    ------
    UserError
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise UserError(f"a scale ends at {SMALLEST_SCALE} to {LARGEST_SCALE}, not at {scale}")
    return scale


def ends(scale: int) -> str:
    """What the two ends of a scale mean."""
    return f"1 = not at all, {scale} = entirely"


def about(criterion: str) -> str:
    """What an item is that has such a criterion: ``response`` or ``group``."""
    return "group" if criterion in OF_GROUPS else "response"
