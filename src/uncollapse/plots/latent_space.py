"""Pictures of a latent space, drawn so that a collapsed one looks collapsed.

Axes are in standard deviations of the prior N(0, I), both alike, and the same in all panels that
are compared: rescaling each picture to its own points would make noise look like structure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from uncollapse.errors import UserError
from uncollapse.plots.style import FAINT, MARKERS, MUTED, PALETTE, colour, shape, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST_LIMIT, LARGEST_LIMIT = 2.5, 6.0  # prior standard deviations


@dataclass(frozen=True)
class LatentPanel:
    """The latent space of one system.

    Parameters
    ----------
    name : str
        The system.
    means : ndarray
        Posterior means ``(N, D)``.
    labels : ndarray or None
        Class of each sentence, ``(N,)``, -1 where missing.
    label_names : sequence of str
        Name of each class.
    kl : float or None
        Nats per sentence; None for a system that has none (an autoencoder).
    active_units : float or None
    """

    name: str
    means: np.ndarray
    labels: np.ndarray | None = None
    label_names: Sequence[str] = ()
    kl: float | None = None
    active_units: float | None = None

    @property
    def title(self) -> str:
        """Such as ``vae: KL 0.0, 0 active units``."""
        facts = [] if self.kl is None else [f"KL {self.kl:.1f}"]
        if self.active_units is not None:
            unit = "active unit" if self.active_units == 1 else "active units"
            facts.append(f"{self.active_units:g} {unit}")
        return f"{self.name}: {', '.join(facts)}" if facts else self.name


def project(means: np.ndarray) -> np.ndarray:
    """Posterior means on their two principal axes, ``(N, 2)``.

    The axes are those of the centred means, but the origin stays that of the prior, and nothing
    is scaled: N(0, I) projects to N(0, I). One or two dimensions stay as they are.

    Raises
    ------
    UserError
        If ``means`` is not ``(N, D)`` with at least one row and column.
    """
    means = np.asarray(means, dtype=np.float64)
    if means.ndim != 2 or 0 in means.shape:
        raise UserError(f"posterior means must have shape (N, D), not {means.shape}")
    if means.shape[1] <= 2:
        return np.pad(means, ((0, 0), (0, 2 - means.shape[1])))  # (N, 2)
    axes = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][:2]  # (≤ 2, D)
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # a single sentence has one axis
    # an axis has no sign of its own: let its largest component be positive
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    return means @ (axes * np.where(largest < 0, -1, 1)[:, None]).T


def common_limit(means: Iterable[np.ndarray]) -> float:
    """Half the width of the axes for panels that are compared, in prior standard deviations.

    It holds 99.5 % of the sentences of every panel, within [2.5, 6].
    """
    wanted = [float(np.quantile(np.abs(project(mean)).max(1), 0.995)) for mean in means]
    widest = math.ceil(2.1 * max(wanted, default=0.0)) / 2
    return min(max(widest, SMALLEST_LIMIT), LARGEST_LIMIT)


def latent_space(
    means: np.ndarray,
    labels: np.ndarray | None = None,
    label_names: Sequence[str] = (),
    *,
    title: str = "",
    limit: float | None = None,
    prior: bool = True,
    legend: bool = True,
) -> Figure:
    """Draw posterior means on their two principal axes, coloured by class.

    Parameters
    ----------
    means : ndarray
        ``(N, D)``.
    labels : ndarray or None
        ``(N,)``, -1 where missing.
    label_names : sequence of str
        Name of each class.
    title : str
    limit : float or None
        Half the width of the axes; None: that of `common_limit` for these means. Give all
        panels of a comparison the same.
    prior : bool
        Whether there is a prior to show, as circles one and two standard deviations wide.
        Without one the axes fit the points.
    legend : bool
        Whether to name the classes beside the picture.
    """
    labelled = legend and labels is not None
    with style():
        figure = Figure(figsize=(5.4 if labelled else 3.7, 3.7), layout="constrained")
        axes = figure.subplots()
        if limit is None:
            own = 1.05 * float(np.abs(project(means)).max()) or 1.0
            limit = common_limit([means]) if prior else own
        _draw(axes, means, labels, label_names, limit, prior)
        axes.set_title(title)
        if labelled:
            name_classes(figure, label_names)
    return figure


def collapse_pair(left: LatentPanel, right: LatentPanel) -> Figure:
    """Two latent spaces of the same sentences, side by side on the same axes."""
    with style():
        labelled = left.labels is not None
        width = 8.6 if labelled else 7.2
        figure = Figure(figsize=(width, 3.8), layout="constrained")
        both = figure.subplots(1, 2, sharex=True, sharey=True)
        limit = common_limit([left.means, right.means])
        for axes, panel in zip(both, (left, right), strict=True):
            _draw(axes, panel.means, panel.labels, panel.label_names, limit, prior=True)
            axes.set_title(panel.title)
        both[1].set_ylabel("")
        if labelled:
            name_classes(figure, left.label_names)
    return figure


def _draw(
    axes: Axes,
    means: np.ndarray,
    labels: np.ndarray | None,
    label_names: Sequence[str],
    limit: float,
    prior: bool,
) -> None:
    points = project(means)  # (N, 2)
    for radius in (1, 2) if prior else ():
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=FAINT, linewidth=1))
        axes.annotate(
            f"{radius}σ", (0, radius), color=MUTED, fontsize=7, ha="center", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    size = 5 + 130 / math.sqrt(len(points))
    classes = np.full(len(points), -1) if labels is None else np.asarray(labels)
    if labels is None:
        colours = np.full(len(points), colour(0))
    else:
        known = (classes >= 0) & (classes < len(label_names))
        colours = np.where(known, [colour(int(number)) for number in classes], FAINT)
    # classes stay mixed, as in the data: drawn one by one, the last would cover the others
    group = np.maximum(classes, 0) // len(PALETTE)
    for number in np.unique(group):
        chosen = group == number
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=size,
            c=colours[chosen].tolist(),
            marker=shape(int(number) * len(PALETTE), MARKERS)[0],
            linewidths=0,
            alpha=0.8,
            zorder=2,
        )
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ticks = [t for t in range(-6, 7, 1 if limit <= 3 else 2) if abs(t) <= limit]
    if prior:
        axes.set(xticks=ticks, yticks=ticks)
    direction = "principal axis" if np.shape(means)[1] > 2 else "dimension"
    unit = " (σ of the prior)" if prior else ""
    axes.set(xlabel=f"first {direction}{unit}", ylabel=f"second {direction}{unit}")
    outside = float((np.abs(points) > limit).any(1).mean())
    remarks = [] if prior else ["no prior: its own scale"]
    remarks += [f"{outside:.0%} of the sentences lie outside"] if outside > 0.005 else []
    axes.text(
        0.99,
        0.01,
        "\n".join(remarks),
        color=MUTED,
        fontsize=7,
        ha="right",
        va="bottom",
        transform=axes.transAxes,
    )


def name_classes(figure: Figure, label_names: Sequence[str]) -> None:
    """Name the classes of a picture beside it."""
    handles = [
        Line2D([], [], linestyle="", color=colour(n), marker=shape(n, MARKERS)[0], markersize=5)
        for n in range(len(label_names))
    ]
    figure.legend(
        handles,
        [name if len(name) <= 24 else f"{name[:23]}…" for name in label_names],
        loc="outside right center",
        ncols=math.ceil(len(label_names) / 16),
        handletextpad=0.2,
        borderaxespad=0,
    )
