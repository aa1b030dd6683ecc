"""Figures of training: quantities over epochs, and where in the latent the information sits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uncollapse.errors import unknown_name
from uncollapse.plots.style import LINES, colour, shape, style

History = Sequence[Mapping[str, Any]]

QUANTITIES = {
    "kl": ("KL", "nats per sentence"),
    "mi": ("Mutual information", "nats"),
    "active_units": ("Active units", "dimensions"),
    "elbo": ("ELBO", "nats per sentence"),
    "reconstruction": ("Reconstruction", "nats per sentence"),
}


def training_curves(
    histories: Mapping[str, Sequence[History]], quantity: str, *, legend: bool = True
) -> Figure:
    """Draw one quantity of the validation set over the epochs.

    Parameters
    ----------
    histories : mapping
        Of each system, one history a seed: rows with ``epoch`` and ``validation/QUANTITY``, or
        ``validation/QUANTITY/LATENT`` for every latent, which are added up. A system without
        the quantity (a language model has no KL) is left out.
    quantity : str
        One of `QUANTITIES`.
    legend : bool
        Whether to name the systems in the figure.

    Raises
    ------
    UserError
        For an unknown quantity.
    """
    if quantity not in QUANTITIES:
        raise unknown_name("quantity", quantity, QUANTITIES)
    name, unit = QUANTITIES[quantity]
    with style():
        figure, axes = _axes(name)
        lowest = math.inf
        for number, (system, runs) in enumerate(histories.items()):
            for history in runs:
                found = [(row["epoch"], value_of(row, quantity)) for row in history]
                curve = [(epoch, value) for epoch, value in found if value is not None]
                if not curve:
                    continue
                lowest = min(lowest, *(value for _, value in curve))
                _line(axes, *zip(*curve, strict=True), number=number, label=system)
        axes.set(xlabel="epoch", ylabel=f"{name} ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if quantity == "active_units":
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if 0 <= lowest < math.inf:
            axes.set_ylim(bottom=0)  # a KL of 0.1 must not fill the picture
            top = axes.get_ylim()[1]
            axes.set_ylim(-0.015 * max(top, 1), max(top, 1))
        if legend:
            _name_systems(figure, axes)
    return figure


def kl_per_dimension(values: Mapping[str, Sequence[float]], *, legend: bool = True) -> Figure:
    """Draw the KL of every latent dimension, the largest first: which of them carry anything.

    Parameters
    ----------
    values : mapping
        Of each system, the mean KL of each dimension ``(D,)``, nats per sentence.
    legend : bool
        Whether to name the systems in the figure.
    """
    with style():
        figure, axes = _axes("KL per dimension")
        for number, (system, kl) in enumerate(values.items()):
            if len(kl):
                ranked = sorted(kl, reverse=True)
                _line(axes, range(1, len(kl) + 1), ranked, number=number, label=system)
        axes.set(xlabel="latent dimension, largest KL first", ylabel="KL (nats per sentence)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        top = max(axes.get_ylim()[1], 0.1)
        axes.set_ylim(-0.015 * top, top)
        if legend:
            _name_systems(figure, axes)
    return figure


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y")
    axes.set_title(title)
    return figure, axes


def _line(axes: Any, x: Sequence[float], y: Sequence[float], *, number: int, label: str) -> None:
    axes.plot(
        x,
        y,
        color=colour(number),
        linestyle=shape(number, LINES)[0],
        linewidth=1.8,
        marker="o",
        markersize=3.2 if len(x) <= 40 else 0,
        label=label,
        clip_on=False,
    )


def value_of(row: Mapping[str, Any], quantity: str) -> float | None:
    key = f"validation/{quantity}"
    if key in row:
        return row[key]
    parts = [value for name, value in row.items() if name.startswith(f"{key}/")]
    return math.fsum(parts) if parts else None


def _name_systems(figure: Figure, axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))  # a system has a line a seed
    if len(once) > 1:
        figure.legend(once.values(), once.keys(), loc="outside right upper", borderaxespad=0)
