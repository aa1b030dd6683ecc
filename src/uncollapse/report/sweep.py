"""What a comparison found while one key of its recipes varied, as a picture of a trade-off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uncollapse.plots.tradeoff import Point, tradeoff

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.report.table import Cell, Table

# what is held against NLL: the first that was measured
AGAINST_NLL = ("reverse_ppl", "bleu")
TITLES = {
    "reverse_ppl": "Reverse perplexity against NLL",
    "bleu": "BLEU of reconstructions against NLL",
}
AXES = {
    "nll": "NLL (nats per sentence; lower: a better model of real sentences)",
    "reverse_ppl": "reverse perplexity (lower: better samples)",
    "bleu": "BLEU of reconstructions (higher: z tells more)",
}


@dataclass(frozen=True)
class Sweep:
    """A key of recipes that varies.

    Attributes
    ----------
    key : str
        E.g. ``latents.z.divergence.beta``.
    systems : mapping
        ``{recipe: {value: system}}``, values as given; only recipes that the key fits.
    """

    key: str
    systems: Mapping[str, Mapping[str, str]]

    @property
    def parameter(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def values(self) -> tuple[str, ...]:
        """All values, as given."""
        return tuple(dict.fromkeys(value for part in self.systems.values() for value in part))

    @property
    def line(self) -> str:
        """Such as ``latents.z.divergence.beta = 0, 0.5 in dgm-vae``."""
        return f"{self.key} = {', '.join(self.values)} in {' and '.join(self.systems)}"

    def recipe_of(self, system: str) -> str:
        """The recipe that a system is of; a system that does not vary is a recipe itself."""
        for recipe, variants in self.systems.items():
            if system in variants.values():
                return recipe
        return system


@dataclass(frozen=True)
class TradeOff:
    """A picture of a sweep, and what it shows in a line."""

    title: str
    figure: Figure


def draw_tradeoff(sweep: Sweep, table: Table) -> TradeOff | None:
    """Draw reverse perplexity against NLL; BLEU where reverse perplexity was not measured.

    Parameters
    ----------
    sweep : Sweep
    table : Table
        With a row a system. Systems that do not vary are points without a line.

    Returns
    -------
    TradeOff or None
        None where no system that varies has both figures.
    """
    columns = {column.name: number for number, column in enumerate(table.columns)}
    rows = {row.system: row.cells for row in table.rows}
    for metric in AGAINST_NLL:
        if metric not in columns or "nll" not in columns:
            continue
        lines: dict[str, list[Point]] = {}
        for system, cells in rows.items():
            x, y = cells[columns["nll"]], cells[columns[metric]]
            recipe = sweep.recipe_of(system)
            value = _value(sweep.systems.get(recipe, {}), system)
            point = _point(value, x, y)
            if point is not None:
                lines.setdefault(recipe, []).append(point)
        if not lines.keys() & sweep.systems.keys():
            continue
        for line in lines.values():
            line.sort(key=lambda point: _order(point.value))
        title = f"{TITLES[metric]} over {sweep.parameter}"
        if metric != AGAINST_NLL[0]:
            title += "\n(no reverse perplexity was measured)"
        figure = tradeoff(lines, AXES["nll"], AXES[metric], title=title, key=sweep.parameter)
        return TradeOff(title.replace("\n", " "), figure)
    return None


def _value(variants: Mapping[str, str], system: str) -> str:
    return next((value for value, name in variants.items() if name == system), "")


def _point(value: str, x: Cell, y: Cell) -> Point | None:
    if x.value is None or y.value is None or not math.isfinite(x.value + y.value):
        return None
    return Point(value, x.value, y.value, x.standard_error, y.standard_error)


def _order(value: str) -> float:
    """Numbers by size; what is none stays where it was given, after them."""
    try:
        return float(value)
    except ValueError:
        return math.inf
