"""The figure of `growth.py`: time and memory of every curve, small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from growth_points import FLOOR_MB
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from uncollapse.plots.style import FAINT, MUTED, colour, style

if TYPE_CHECKING:
    from growth import Curve
    from growth_points import Point
    from matplotlib.axes import Axes

ROWS = ("seconds", "MB")
PREFIXES = ((1e6, "M"), (1e3, "k"))


def growth_figure(curves: Mapping[Curve, Sequence[Point]]) -> Figure:
    """Time above, peak memory below, against size; both axes logarithmic.

    A grey line through each largest point shows what linear growth would be.
    """
    with style():
        figure = Figure(figsize=(0.6 + 1.8 * len(curves), 4.0), layout="constrained")
        panels = figure.subplots(2, len(curves), sharex="col", squeeze=False)
        for column, (curve, points) in enumerate(curves.items()):
            sizes = [point.size for point in points]
            for row, values in enumerate(
                (
                    [median(point.seconds) for point in points],
                    [max(point.memory_mb, FLOOR_MB) for point in points],
                )
            ):
                axes = panels[row, column]
                _draw(axes, sizes, values, colour(row))
                if column == 0:
                    axes.set_ylabel(ROWS[row])
            panels[0, column].set_title(curve.title.replace(": ", "\n"))
            panels[1, column].set_xlabel(curve.unit)
        figure.suptitle("Grey: linear growth", x=0.995, ha="right", fontsize=8, color=MUTED)
    return figure


def _draw(axes: Axes, sizes: Sequence[int], values: Sequence[float], own: str) -> None:
    axes.loglog(
        sizes,
        [values[-1] * size / sizes[-1] for size in sizes],
        color=FAINT,
        linewidth=1.4,
        scaley=False,
    )
    axes.loglog(sizes, values, color=own, marker="o", markersize=4, linewidth=1.6)
    low, high = min(values), max(values)
    middle = (low * high) ** 0.5
    # a decade and a half at least, so that a flat curve looks flat
    axes.set_ylim(min(low / 1.5, middle / 6), max(high * 1.5, middle * 6))
    axes.grid(axis="y")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)


def _short(value: float, _position: int | None = None) -> str:
    """1000000 as 1M."""
    for size, letter in PREFIXES:
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
