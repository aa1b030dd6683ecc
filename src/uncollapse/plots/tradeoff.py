"""What one figure costs another while a key of the recipe varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from uncollapse.errors import UserError
from uncollapse.plots.style import INK, MARKERS, colour, shape, style

# points closer than these shares of the axes are named together: their names would collide
NEAR = (0.06, 0.06)


@dataclass(frozen=True)
class Point:
    """A system at one value of the varied key.

    Attributes
    ----------
    value : str
        Of the key; empty for a system that does not vary.
    x, y : float
        Its two figures.
    x_error, y_error : float or None
        Their standard errors, where known.
    """

    value: str
    x: float
    y: float
    x_error: float | None = None
    y_error: float | None = None


def tradeoff(
    systems: Mapping[str, Sequence[Point]], x: str, y: str, *, title: str = "", key: str = ""
) -> Figure:
    """Draw one figure against another, a point for every value of the varied key.

    Parameters
    ----------
    systems : mapping of str to sequence of Point
        Of each system, its points in the order in which a line joins them; bars are standard
        errors.
    x, y : str
        What the axes say.
    title : str
    key : str
        The varied key, for the legend.

    Raises
    ------
    UserError
        If there is no point.

    References
    ----------
    Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
    Generation", who draw reverse perplexity against NLL over β.
    """
    points = [point for line in systems.values() for point in line]
    if not points:
        raise UserError("a trade-off needs a system that has both figures")
    with style():
        figure = Figure(figsize=(5.4, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        axes.margins(0.12)
        for number, (name, line) in enumerate(systems.items()):
            if not line:
                continue
            varied = any(point.value for point in line)
            axes.errorbar(
                [point.x for point in line],
                [point.y for point in line],
                yerr=[point.y_error or 0.0 for point in line],
                xerr=[point.x_error or 0.0 for point in line],
                color=colour(number),
                linestyle="solid" if varied else "",
                linewidth=1.6,
                elinewidth=0.9,
                marker=shape(number, MARKERS)[0] if varied else "D",
                markersize=5,
                label=f"{name} over {key}" if varied and key else name,
            )
        spans = (_span([point.x for point in points]), _span([point.y for point in points]))
        for number, line in enumerate(systems.values()):
            for point, text in _named(line, spans):
                rising = _rises(line, point)  # then the line is on the right above the point
                axes.annotate(
                    text, (point.x, point.y), xytext=(-6 if rising else 6, 5),
                    ha="right" if rising else "left", textcoords="offset points",
                    color=INK if len(systems) == 1 else colour(number), fontsize=8,
                )  # fmt: skip
        axes.set(xlabel=x, ylabel=y, title=title)
        if len(systems) > 1:
            figure.legend(loc="outside lower left", ncols=2, handlelength=2.2)
    return figure


def _named(line: Sequence[Point], spans: tuple[float, float]) -> list[tuple[Point, str]]:
    """The values to write, each at the first of the points that lie together, in their order."""
    groups: list[list[Point]] = []
    for point in line:
        for group in groups:
            distance = (abs(group[0].x - point.x), abs(group[0].y - point.y))
            if all(d <= near * s for d, near, s in zip(distance, NEAR, spans, strict=True)):
                group.append(point)
                break
        else:
            groups.append([point])
    return [(group[0], ", ".join(point.value for point in group)) for group in groups]


def _rises(line: Sequence[Point], point: Point) -> bool:
    """Whether y grows with x from the point before to the point after."""
    place = line.index(point)
    before, after = line[max(place - 1, 0)], line[min(place + 1, len(line) - 1)]
    return (after.x - before.x) * (after.y - before.y) > 0


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)
