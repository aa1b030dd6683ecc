"""What pulls two components of a mixture together: L_d, and their variance, over where they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from uncollapse.errors import UserError
from uncollapse.plots.dispersion_planes import Parameter, Plane, plane_of
from uncollapse.plots.style import INK, MUTED, style

POINTS = 81  # along each axis
ARROWS = 13
DECADES = 4  # below the largest value, those that contours show
STEPS = (1.0, 3.0)  # contours in each decade
NEAREST = 0.6  # distances between arrows: nearer to the collapse, one would hide it


@dataclass(frozen=True)
class Landscape:
    """L_d and Var on a grid, and which way L_d falls.

    Attributes
    ----------
    x, y : ndarray
        ``(X,)`` and ``(Y,)``: coordinates.
    dispersion, variance : ndarray
        ``(Y, X)``: L_d in nats, Var of the natural parameters.
    arrows, down : ndarray
        ``(A, 2)``: where the arrows stand, and −∇L_d there; both in shares of the axes' lengths.
    """

    x: np.ndarray
    y: np.ndarray
    dispersion: np.ndarray
    variance: np.ndarray
    arrows: np.ndarray
    down: np.ndarray


def landscape(kind: str, weight: float = 0.5, points: int = POINTS) -> Landscape:
    """L_d and Var of two components with weights ``weight`` and 1 − ``weight``.

    Parameters
    ----------
    kind : str
        One of `PLANES`.
    weight : float
        Of the first component, q(c = 1|x); between 0 and 1.
    points : int
        Along each axis.

    Raises
    ------
    UserError
        For an unknown family or a weight out of range.
    """
    plane = plane_of(kind)
    if not 0 < weight < 1:
        raise UserError(f"the weight must be between 0 and 1, not {weight:g}")
    weights = torch.tensor([weight, 1 - weight], dtype=torch.float64)
    x, y = plane.x.values(points), plane.y.values(points)
    naturals = plane.naturals(*torch.meshgrid(x, y, indexing="xy"))  # (Y, X, 2, P)
    steps = (torch.arange(ARROWS, dtype=torch.float64) + 0.5) / ARROWS  # none stands on an edge
    arrows = torch.cartesian_prod(steps, steps)  # (A, 2)
    return Landscape(
        x.numpy(),
        y.numpy(),
        plane.family.dispersion(weights, naturals).numpy(),
        plane.family.weighted_variance(weights, naturals).numpy(),
        arrows.numpy(),
        _downhill(plane, weights, arrows),
    )


def dispersion_landscape(kind: str, *, weight: float = 0.5) -> Figure:
    """Draw L_d, with arrows along −∇L_d, and beside it the variance of the natural parameters.

    Families of one parameter: over that of either component. Of two: one component stays where
    it is, the other is anywhere. Of more: both lie on the line between two members. Contours
    are a factor of about three apart; an arrow says the direction of the pull, not its strength.

    L_d is what the averaged prior adds to its KL in the ELBO of a mixture: to lower it, training
    moves components along the arrows until they have melted.

    References
    ----------
    Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
    Generation", eq. 8.

    Parameters
    ----------
    kind : str
        One of `PLANES`.
    weight : float
        Of the first component; between 0 and 1.

    Raises
    ------
    UserError
        For an unknown family or a weight out of range.
    """
    plane = plane_of(kind)
    found = landscape(kind, weight)
    with style():
        figure = Figure(figsize=(9.2, 4.1), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        title = f"Two {kind} components, weights {weight:g} and {1 - weight:g}: {plane.about}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=MUTED)
        _contours(figure, left, found, found.dispersion, "Blues")
        _contours(figure, right, found, found.variance, "Oranges")
        left.set_title("Dispersion L_d (nats)")
        right.set_title("Weighted variance Var of the natural parameters")
        _arrows(left, plane, found)
        for axes in (left, right):
            _mark_collapse(axes, plane)
            axes.set(xlabel=plane.x.name, ylabel=plane.y.name if axes is left else "")
            axes.set(xscale="log" if plane.x.logarithmic else "linear")
            axes.set(yscale="log" if plane.y.logarithmic else "linear")
            axes.set(xlim=(plane.x.low, plane.x.high), ylim=(plane.y.low, plane.y.high))
            for axis, parameter in ((axes.xaxis, plane.x), (axes.yaxis, plane.y)):
                if parameter.logarithmic:
                    _plain_ticks(axis, parameter)
    return figure


# --- drawing ----------------------------------------------------------------------------------


def levels_of(values: np.ndarray) -> np.ndarray:
    """Where the contours lie: 1 and 3 in each of the `DECADES` below the largest value."""
    top = math.floor(math.log10(values.max()))
    steps = [step * 10.0**power for power in range(top - DECADES, top + 1) for step in STEPS]
    return np.array([step for step in steps if step < values.max()])


def _contours(
    figure: Figure, axes: Axes, found: Landscape, values: np.ndarray, colours: str
) -> None:
    levels = levels_of(values)
    lowest = levels[0] / 3
    norm = LogNorm(lowest, values.max())
    where = (found.x, found.y, values.clip(min=lowest))  # 0 has no logarithm
    filled = axes.contourf(*where, levels, norm=norm, cmap=colours, extend="both", alpha=0.85)
    axes.contour(*where, levels, colors="white", linewidths=0.6)
    bar = figure.colorbar(filled, ax=axes, aspect=28, pad=0.02, ticks=levels)
    bar.ax.set_yticklabels([f"{level:g}" for level in levels])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(length=0, labelsize=7)


def _arrows(axes: Axes, plane: Plane, found: Landscape) -> None:
    if plane.collapse is None:
        distance = np.abs(found.arrows[:, 0] - found.arrows[:, 1]) / math.sqrt(2)
    else:
        x, y = torch.tensor(plane.collapse, dtype=torch.float64)
        point = (float(plane.x.share(x)), float(plane.y.share(y)))
        distance = np.hypot(*(found.arrows - point).T)
    length = np.hypot(*found.down.T)
    seen = (distance > NEAREST / ARROWS) & (length > 0)
    direction = found.down[seen] / length[seen, None]
    axes.quiver(
        *found.arrows[seen].T, *direction.T, transform=axes.transAxes, color=INK, alpha=0.75,
        angles="uv", pivot="mid", scale=26, width=0.004, headwidth=4, zorder=3,
    )  # fmt: skip


def _mark_collapse(axes: Axes, plane: Plane) -> None:
    if plane.collapse is None:
        ends = (plane.x.low, plane.x.high)
        axes.plot(ends, ends, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), zorder=4)
        label, place = "collapse", (0.97, 0.9)
        axes.annotate(
            label, place, xycoords="axes fraction", color=INK, fontsize=8, rotation=0,
            ha="right", va="center", zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )  # fmt: skip
        return
    axes.plot(*plane.collapse, "o", color=INK, markersize=6, zorder=4)
    axes.annotate(
        "collapse", plane.collapse, xytext=(0, -12), textcoords="offset points", color=INK,
        fontsize=8, ha="center", va="center", zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )  # fmt: skip


def _plain_ticks(axis: object, parameter: Parameter) -> None:
    """1, 2, 5 and their tenfolds, written out."""
    every = [step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5)]
    ticks = [tick for tick in every if parameter.low <= tick <= parameter.high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])  # type: ignore[attr-defined]
    axis.set_ticks([], minor=True)  # type: ignore[attr-defined]


def _downhill(plane: Plane, weights: Tensor, arrows: Tensor) -> np.ndarray:
    """−∇L_d at shares of the axes' lengths, by the shares, both ``(A, 2)``."""
    shares = arrows.clone().requires_grad_()
    with torch.enable_grad():
        places = plane.x.at(shares[:, 0]), plane.y.at(shares[:, 1])
        total = plane.family.dispersion(weights, plane.naturals(*places)).sum()
        (slope,) = torch.autograd.grad(total, shares)
    return -slope.numpy()
