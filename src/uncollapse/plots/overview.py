"""One run at a glance: what z carries, how many units are alive, and what it is worth."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uncollapse.errors import UserError
from uncollapse.plots.probes import apart
from uncollapse.plots.style import colour, style
from uncollapse.plots.training import QUANTITIES, History, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[str, list[tuple[int, float]]]

# quantities of one unit share a panel
PANELS = {
    "Information in z": ("kl", "mi"),
    "Active units": ("active_units",),
    "ELBO and reconstruction": ("elbo", "reconstruction"),
}
SHORT = {"kl": "KL", "mi": "MI", "elbo": "ELBO", "reconstruction": "reconstruction"}


def training_overview(
    history: History, *, quantities: Collection[str] = tuple(QUANTITIES), title: str = ""
) -> Figure:
    """Draw KL and mutual information, active units, ELBO and reconstruction over the epochs.

    Parameters
    ----------
    history : sequence of mapping
        Rows with ``epoch`` and ``validation/QUANTITY``, as `training_curves` takes them.
    quantities : collection of str
        Those that the system has: the ELBO of an autoencoder is none.
    title : str

    Raises
    ------
    UserError
        For a history that has none of them.
    """
    shown: dict[str, Curves] = {}
    for panel, names in PANELS.items():
        for name in names:
            found = [(row["epoch"], value_of(row, name)) for row in history]
            curve = [(epoch, value) for epoch, value in found if value is not None]
            if curve and name in quantities:
                shown.setdefault(panel, {})[name] = curve
    if not shown:
        raise UserError("there is no history of training to draw")
    with style():
        figure = Figure(figsize=(1 + 2.7 * len(shown), 3.0), layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (panel, curves) in zip(panels, shown.items(), strict=True):
            axes.set_title(panel if len(curves) > 1 else QUANTITIES[next(iter(curves))][0])
            _draw(axes, curves)
    return figure


def _draw(axes: Axes, curves: Curves) -> None:
    axes.grid(axis="y")
    for number, curve in enumerate(curves.values()):
        axes.plot(
            *zip(*curve, strict=True), color=colour(number), linewidth=1.8, marker="o",
            markersize=3.2 if len(curve) <= 40 else 0, clip_on=False,
        )  # fmt: skip
    if "elbo" not in curves and "reconstruction" not in curves:
        low, top = axes.get_ylim()
        top = max(top, 1.0)  # a KL of 0.1 must not fill the picture
        axes.set_ylim(min(-0.015 * top, low if low < -0.05 * top else 0), top)
    whole = "active_units" in curves
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(integer=whole, nbins=6))
    axes.set(xlabel="epoch", ylabel=QUANTITIES[next(iter(curves))][1])
    if len(curves) == 1:
        return
    heights = apart([curve[-1][1] for curve in curves.values()], *axes.get_ylim())
    for number, (name, height) in enumerate(zip(curves, heights, strict=True)):
        axes.annotate(
            SHORT[name], (1, height), xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0), textcoords="offset points", color=colour(number), va="center",
            annotation_clip=False,
        )  # fmt: skip
