"""Pictures of the components of a mixture prior, and of the sentences among them.

Both axes have one scale, and what is compared has common axes: components that have melted into
one another lie on one another in the picture too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.figure import Figure

from uncollapse.errors import RunError, UserError
from uncollapse.plots.component_geometry import group_of, same_window, view_of
from uncollapse.plots.component_panel import LONGEST_NAME, By, Names, draw_group
from uncollapse.plots.latent_space import name_classes
from uncollapse.plots.style import style

if TYPE_CHECKING:
    from uncollapse.evaluation.snapshot import Snapshot

MOST_PANELS = 6
# of an animation: seconds of all frames together, of one frame at most, and of the last one
SECONDS, SLOWEST, PAUSE = 8.0, 1.0, 2.0
ANIMATION_DPI = 120


def component_space(
    snapshot: Snapshot,
    group: int = 0,
    *,
    title: str = "",
    by: By | None = None,
    names: Names | None = None,
) -> Figure:
    """Draw the latent space of one group: sentences as dots, components as ellipses.

    A dot is a posterior mean; ellipses are one and two standard deviations of a component wide,
    its number or name at their middle. Components that agree in mean and deviation within a
    tenth of a deviation are counted, and take turns on the line that they share. A group
    of one number has a row for every component, with bars in place of ellipses.

    Parameters
    ----------
    snapshot : Snapshot
    group : int
        Which of the M mixtures; 0 if there is none.
    title : str
    by : {"component", "label"}, optional
        What the colour of a sentence says: its most probable component, or its label; if not
        said, its component where there are any.
    names : mapping of int to str, optional
        Of components.

    Raises
    ------
    UserError
        For a group or labels that do not exist.
    """
    found = group_of(snapshot, group)
    by = _colours(by, [snapshot])
    with style():
        figure = Figure(figsize=(4.1 + _legend(by, snapshot), 3.9), layout="constrained")
        axes = figure.subplots()
        draw_group(axes, found, view_of([found]), by, names or {})
        axes.set_title(title)
        if by == "label":
            name_classes(figure, snapshot.label_names)
    return figure


def component_pair(
    left: Snapshot,
    right: Snapshot,
    group: int = 0,
    *,
    titles: tuple[str, str] = ("", ""),
    by: By | None = None,
    names: tuple[Names, Names] = ({}, {}),
) -> Figure:
    """Two models of the same sentences side by side on the same axes; see `component_space`.

    Parameters
    ----------
    left, right : Snapshot
    group : int
        Of either.
    titles : tuple of str
    by : {"component", "label"}, optional
    names : tuple of mapping of int to str
        Of the components of either.

    Raises
    ------
    UserError
        For a group or labels that do not exist, or where one group alone has one number.
    """
    groups = [group_of(snapshot, group) for snapshot in (left, right)]
    if (groups[0].dim == 1) != (groups[1].dim == 1):
        raise UserError("a group of one number and one of several cannot share their axes")
    by = _colours(by, [left, right])
    # two models have two latent spaces: where axes must be turned, each in its own way
    turned = groups[0].dim > 2 or groups[1].dim > 2
    views = same_window([view_of([found]) for found in groups]) if turned else [view_of(groups)] * 2
    with style():
        figure = Figure(figsize=(7.9 + _legend(by, left), 3.9), layout="constrained")
        both = figure.subplots(1, 2, sharex=True, sharey=groups[0].dim > 1)
        for number, axes in enumerate(both):
            draw_group(axes, groups[number], views[number], by, names[number])
            axes.set_title(titles[number])
        if not turned:
            both[1].set_ylabel("")
        if by == "label":
            name_classes(figure, left.label_names)
    return figure


def components_over_training(
    snapshots: Sequence[Snapshot], group: int = 0, *, title: str = "", by: By | None = None
) -> Figure:
    """A row of panels on common axes, one a snapshot; see `component_space`.

    Of more than `MOST_PANELS` snapshots, so many are shown, evenly spread, with the first and
    the last.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Of one run, in order.
    group : int
    title : str
    by : {"component", "label"}, optional

    Raises
    ------
    UserError
        Without snapshots, or for a group or labels that do not exist.
    """
    by = _colours(by, snapshots)
    chosen = np.linspace(0, len(snapshots) - 1, min(MOST_PANELS, len(snapshots)))
    shown = [snapshots[number] for number in chosen.round().astype(int)]
    groups = [group_of(snapshot, group) for snapshot in shown]
    view = view_of(groups)
    with style():
        width = 0.6 + 2.9 * len(shown) + _legend(by, shown[0])
        figure = Figure(figsize=(width, 2.9 + 0.3 * bool(title)), layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
        for axes, snapshot, found in zip(panels, shown, groups, strict=True):
            draw_group(axes, found, view, by, {})
            axes.set_title(snapshot.moment)
            if axes is not panels[0]:
                axes.set_ylabel("")
        if by == "label":
            name_classes(figure, shown[0].label_names)
    return figure


def animate(
    snapshots: Sequence[Snapshot],
    path: str | Path,
    group: int = 0,
    *,
    title: str = "",
    by: By | None = None,
) -> Path:
    """Write an animated GIF, a frame a snapshot, on common axes; see `component_space`.

    Nothing is made up between snapshots: more of them make it smoother.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Of one run, in order.
    path : path
        Ends in ``.gif``.
    group : int
    title : str
        Stands before the number of batches.
    by : {"component", "label"}, optional

    Raises
    ------
    UserError
        Without snapshots, or for a group or labels that do not exist.
    RunError
        If the file cannot be written.
    """
    from matplotlib.animation import PillowWriter

    path = Path(path)
    by = _colours(by, snapshots)
    groups = [group_of(snapshot, group) for snapshot in snapshots]
    view = view_of(groups)
    frame = min(SECONDS / len(snapshots), SLOWEST)
    # Pillow takes fractions, whatever the annotation says
    writer = PillowWriter(fps=cast("int", 1 / frame))
    with style():
        figure = Figure(figsize=(4.4 + _legend(by, snapshots[0]), 4.2), layout="constrained")
        axes = figure.subplots()
        if by == "label":
            name_classes(figure, snapshots[0].label_names)
        try:
            with writer.saving(figure, str(path), ANIMATION_DPI):
                for snapshot, found in zip(snapshots, groups, strict=True):
                    axes.clear()
                    draw_group(axes, found, view, by, {})
                    axes.set_title(": ".join(filter(None, (title, snapshot.moment))))
                    figure.canvas.draw()
                    if snapshot is snapshots[0]:
                        figure.set_layout_engine("none")  # axes stay where they are
                    writer.grab_frame()
                for _ in range(round(PAUSE / frame)):
                    writer.grab_frame()
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _legend(by: By, snapshot: Snapshot) -> float:
    """Inches that the names of the classes take beside a picture."""
    if by == "component":
        return 0.0
    columns = math.ceil(len(snapshot.label_names) / 16)
    longest = max(map(len, snapshot.label_names), default=0)
    return columns * (0.3 + 0.075 * min(longest, LONGEST_NAME))


def _colours(by: By | None, snapshots: Sequence[Snapshot]) -> By:
    """What colours say; refuses what the snapshots do not have."""
    if not snapshots:
        raise UserError("there are no snapshots to draw")
    if by == "label" and any(snapshot.labels is None for snapshot in snapshots):
        raise UserError("the sentences have no labels to colour them by")
    if by == "component" and any(snapshot.component is None for snapshot in snapshots):
        raise UserError("without a mixture prior there are no components to colour by")
    if by is not None:
        return by
    labelled = all(s.component is None and s.labels is not None for s in snapshots)
    return "label" if labelled else "component"
