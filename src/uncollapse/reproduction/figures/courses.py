"""Validation figures over the epochs of a run, from its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.drawn import short
from uncollapse.reproduction.figures.runs import seeds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published

Course = dict[str, Any]  # seed, epoch, and a list a figure


def courses(
    published: Published, runs: Runs, corpus: str, figures: Sequence[str]
) -> dict[str, list[Course]]:
    """Of every row that has been trained, a course a seed; epochs that lack a figure are left out.

    Parameters
    ----------
    published : Published
    runs : Runs
    corpus : str
    figures : sequence of str
        Names in a record's history.
    """
    found: dict[str, list[Course]] = {}
    for row in published.rows:
        for seed in seeds_of(runs, row.label, corpus):
            record = runs.record(row.label, corpus, seed)
            assert record is not None  # seeds_of has seen it
            kept = [epoch for epoch in record.history if all(name in epoch for name in figures)]
            if kept:
                course: Course = {"seed": seed, "epoch": [int(epoch["epoch"]) for epoch in kept]}
                course |= {name: short([epoch[name] for epoch in kept]) for name in figures}
                found.setdefault(row.label, []).append(course)
    return found


def last(own: Sequence[Course], figure: str) -> list[float]:
    """After the last epoch, a value a seed."""
    return [course[figure][-1] for course in own]


def plot_course(axes: Axes, own: Sequence[Course], figure: str, **how: Any) -> None:
    """A line a seed; only the first of them is named in a legend."""
    for number, course in enumerate(own):
        label = how.get("label") if number == 0 else None
        axes.plot(
            course["epoch"],
            course[figure],
            linewidth=1.6,
            markersize=4,
            alpha=1.0 if len(own) == 1 else 0.7,
            clip_on=False,
            **{**how, "label": label},
        )


def whole_epochs(axes: Axes) -> None:
    """No half epochs on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("epoch")
