"""One panel of a picture of components: dots, ellipses, names and remarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.patches import Arc, Ellipse
from matplotlib.ticker import MaxNLocator

from uncollapse.plots.component_geometry import ALIKE, Group, View, ellipse
from uncollapse.plots.style import FAINT, INK, MARKERS, MUTED, PALETTE, colour, shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By = Literal["component", "label"]
Names = Mapping[int, str]  # of components

LONGEST_NAME, MOST_NAMES = 24, 8
PIECES = 12  # of an ellipse that components share


def draw_group(axes: Axes, found: Group, view: View, by: By, names: Names) -> None:
    """Draw one group; ``view`` says what of it the axes show."""
    draw = _strip if found.dim == 1 else _plane
    draw(axes, found, view, by, names)
    remarks = []
    alike = sum(len(together) for together in found.together if len(together) > 1)
    if alike:
        remarks.append(f"{alike} of {found.count} components within {ALIKE:g}σ of another")
    idle = [name_of(number, names) for number in np.flatnonzero(~found.used).tolist()]
    if idle:
        remarks.append(f"no sentences: {listed(idle)}")
    points = found.points @ view.axes.T  # (N, A)
    outside = float(((points < view.low) | (points > view.high)).any(1).mean())
    if outside > 0.005:
        remarks.append(f"{outside:.0%} of the sentences lie outside")
    centres = found.centres @ view.axes.T  # (K, A)
    lost = int(((centres < view.low) | (centres > view.high)).any(1).sum())
    if lost:
        remarks.append(f"{lost} of {found.count} components lie outside")
    axes.text(
        0.99, 0.01, "\n".join(remarks), color=MUTED, fontsize=7, ha="right", va="bottom",
        transform=axes.transAxes, zorder=6,
    )  # fmt: skip


def _plane(axes: Axes, found: Group, view: View, by: By, names: Names) -> None:
    """Dots and ellipses on two axes."""
    if found.prior is not None:
        radii = ellipse(found.prior, view.axes)
        for times in (1, 2):
            _outline(axes, np.zeros(2), radii, times, edgecolor=FAINT, linewidth=1)
    points = found.points @ view.axes.T  # (N, 2)
    size = 5 + 130 / math.sqrt(len(points))
    for chosen, tint, marker in _dots(found, by):
        axes.scatter(
            points[chosen, 0], points[chosen, 1], s=size, c=tint, marker=marker,
            linewidths=0, alpha=0.6, zorder=2,
        )  # fmt: skip
    centres = found.centres @ view.axes.T  # (K, 2)
    for together in found.together:
        for place, number in enumerate(together):
            radii = ellipse(found.deviations[number], view.axes)
            tint = colour(number) if by == "component" else INK
            # components that have melted take turns on their common line
            turn = (place, len(together)) if by == "component" else (0, 1)
            for times, line in ((1, 1.8), (2, 0.8)):
                how = {"edgecolor": tint, "linewidth": line, "zorder": 3}
                _outline(axes, centres[number], radii, times, turn, **how)
    inside = ((view.low <= centres) & (centres <= view.high)).all(1)
    span = float(view.high[0] - view.low[0])
    for numbers in _near(centres, np.flatnonzero(inside).tolist(), 0.05 * span):
        text = listed([name_of(number, names) for number in numbers])
        place = centres[numbers].mean(0)
        if len(text) > 2:  # beside the sentences, not over them
            place[1] += np.sqrt(found.deviations[numbers] ** 2 @ view.axes[1] ** 2).max()
        alone = by == "component" and len(numbers) == 1
        axes.annotate(
            text, place, color=colour(numbers[0]) if alone else INK, fontsize=8,
            fontweight="bold", ha="center", va="center", zorder=5, annotation_clip=True,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )  # fmt: skip
    axes.set(xlim=(view.low[0], view.high[0]), ylim=(view.low[1], view.high[1]), aspect="equal")
    axes.set(xlabel=view.names[0], ylabel=view.names[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))


def _strip(axes: Axes, found: Group, view: View, by: By, names: Names) -> None:
    """One axis: a row for every component, with its sentences as strokes and bars over them."""
    rows = max(found.count, 1)
    for chosen, tint, _ in _dots(found, by):
        height = np.zeros(len(chosen)) if found.component is None else found.component[chosen]
        axes.scatter(
            found.points[chosen, 0], height, c=tint, marker="|", s=60, linewidths=0.8, alpha=0.6,
            zorder=2,
        )  # fmt: skip
    middles, deviations = found.centres[:, 0], found.deviations[:, 0]
    if found.prior is not None:
        middles, deviations = np.zeros(1), found.prior
    for row, (middle, deviation) in enumerate(zip(middles, deviations, strict=True)):
        tint = colour(row) if by == "component" and found.count else INK
        for times, line in ((1, 3.0), (2, 1.0)):
            ends = (middle - times * deviation, middle + times * deviation)
            axes.plot(ends, (row + 0.28, row + 0.28), color=tint, linewidth=line, zorder=3)
        axes.plot(middle, row + 0.28, "o", color=tint, markersize=4, zorder=4)
    axes.set(xlim=(view.low[0], view.high[0]), ylim=(rows - 0.1, -0.6), xlabel=view.names[0])
    axes.set_yticks(range(found.count), [name_of(number, names) for number in range(found.count)])
    if found.count:
        axes.set_ylabel("component")


def _outline(
    axes: Axes,
    centre: np.ndarray,
    radii: tuple[float, float, float],
    times: int,
    turn: tuple[int, int] = (0, 1),
    **how: Any,
) -> None:
    """An ellipse, or of ``turn`` (which, of how many) every so manyth piece of it."""
    size = (2 * times * radii[0], 2 * times * radii[1])
    middle = (float(centre[0]), float(centre[1]))
    which, many = turn
    if many == 1:
        axes.add_patch(Ellipse(middle, *size, angle=radii[2], fill=False, **how))
        return
    pieces = many * max(1, round(PIECES / many))
    for piece in range(which, pieces, many):
        ends = {"theta1": 360 * piece / pieces, "theta2": 360 * (piece + 1) / pieces}
        axes.add_patch(Arc(middle, *size, angle=radii[2], **ends, **how))


def _dots(found: Group, by: By) -> Iterator[tuple[np.ndarray, list[str], str]]:
    """Rows of one marker, with their colours; classes stay mixed, so that none hides another."""
    given = found.component if by == "component" else found.labels
    classes = np.zeros(len(found.points), int) if given is None else given
    kinds = np.maximum(classes, 0) // len(PALETTE)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        tints = [FAINT if classes[row] < 0 else colour(int(classes[row])) for row in rows]
        yield rows, tints, shape(int(kind) * len(PALETTE), MARKERS)[0]


def _near(centres: np.ndarray, numbers: list[int], distance: float) -> list[list[int]]:
    """Components in sets whose names would cover one another."""
    sets: list[list[int]] = []
    for number in numbers:
        for others in sets:
            if np.abs(centres[others] - centres[number]).max(1).min() < distance:
                others.append(number)
                break
        else:
            sets.append([number])
    return sets


def name_of(component: int, names: Names) -> str:
    """A component's name, or else its number."""
    name = names.get(component, str(component))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def listed(names: Sequence[str]) -> str:
    """Names one after the other; of many, the first ones and the last."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMES - 2])} … {names[-1]}"
