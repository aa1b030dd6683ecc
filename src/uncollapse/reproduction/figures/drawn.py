"""What every figure of a paper gives back, and how what the paper says of it is judged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from uncollapse.errors import UserError
from uncollapse.reproduction.verdicts import Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published


LETTERS = 14  # an inch, of the head of a figure


@dataclass(frozen=True)
class Drawn:
    """A figure before it is drawn.

    Attributes
    ----------
    values : dict
        All that is drawn, as JSON can hold it.
    judgements : list of Judgement
    markdown : str
        The numbers or sentences in words.
    """

    values: dict[str, Any]
    judgements: list[Judgement]
    markdown: str


class FigureCode(Protocol):
    """A module that makes a figure.

    Attributes
    ----------
    STATEMENTS : tuple of str
        Keys of ``settings.statements`` that it judges, in order.
    """

    STATEMENTS: tuple[str, ...]

    def compute(self, published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
        """Everything that costs time; ``seed`` is of the run that is shown, and of draws."""
        ...

    def draw(self, published: Published, values: dict[str, Any]) -> Figure | None:
        """The picture of what `compute` found; None where there is nothing but sentences."""
        ...


# --- judging ----------------------------------------------------------------------------------


def statement(published: Published, key: str) -> str:
    """What the paper says, by its key.

    Raises
    ------
    UserError
        If the file of the figure has no such statement.
    """
    try:
        return published.settings["statements"][key]
    except (KeyError, TypeError):
        raise UserError(f"{published.name}: settings.statements has no {key!r}") from None


def judged(text: str, holds: bool | None, evidence: str, corpus: str = "") -> Judgement:
    """A judgement of what holds, does not, or (None) cannot be told."""
    if holds is None:
        return Judgement(text, corpus, "undecided", evidence)
    return Judgement(text, corpus, "reproduced" if holds else "not reproduced", evidence)


def lacking(text: str, rows: Iterable[str], corpus: str = "") -> Judgement:
    """A judgement that needs runs which are not there."""
    reason = f"no run of {', '.join(rows)}"
    return Judgement(text, corpus, "cannot be compared", "", reason)


def exceeds(left: Sequence[float], right: Sequence[float] | float) -> bool | None:
    """Whether what was found with every seed is greater; None where seeds disagree, or are none.

    Parameters
    ----------
    left : sequence of float
        A value a seed.
    right : sequence of float or float
        Likewise, of the same seeds, or a limit.
    """
    limits = [right] * len(left) if isinstance(right, int | float) else right
    greater = {a > b for a, b in zip(left, limits, strict=True)}
    return greater.pop() if len(greater) == 1 else None


def beyond(value: float, low: float, high: float) -> bool | None:
    """True from ``high`` on, False up to ``low``; between, nobody can tell."""
    return None if low < value < high else value >= high


def every(answers: Iterable[bool | None]) -> bool | None:
    """Whether all hold: one that does not decides, one that cannot be told leaves it open."""
    found = list(answers)
    if False in found:
        return False
    return None if None in found or not found else True


# --- numbers and words ------------------------------------------------------------------------


def short(values: Any, digits: int = 4) -> Any:
    """Numbers as JSON keeps them: nested lists of so many significant digits, None for NaN."""
    if isinstance(values, np.ndarray):
        return short(values.tolist(), digits)
    if isinstance(values, list | tuple):
        return [short(value, digits) for value in values]
    if values is None or not math.isfinite(values):
        return None
    return float(f"{values:.{digits}g}")


def per_seed(values: Sequence[float], form: str = ".2f") -> str:
    """The mean, and with several seeds what each gave: ``0.31 (0.29, 0.33)``."""
    mean = format(sum(values) / len(values), form)
    if len(values) == 1:
        return mean
    return f"{mean} ({', '.join(format(value, form) for value in values)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def headline(figure: Figure, published: Published, about: str) -> None:
    """Name corpus, preset and numbers over a figure; see ``values["about"]``."""
    from uncollapse.plots.style import MUTED

    lines = textwrap.wrap(about, int(LETTERS * figure.get_figwidth()))
    text = "\n".join([published.title, *lines])
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, color=MUTED)
