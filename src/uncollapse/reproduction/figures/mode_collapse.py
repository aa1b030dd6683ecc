"""Latent spaces and components of Gaussian mixture VAEs, early and late in training.

Shi et al. 2020 (DEM-VAE), Figure 4: 300 utterances in two dimensions after 2,000 and 10,000
updates. From the snapshots that training kept of the validation sentences: the last one, and
that which is nearest to a fifth of the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.reproduction.figures.drawn import (
    Drawn,
    beyond,
    headline,
    judged,
    lacking,
    short,
    statement,
    table,
)
from uncollapse.reproduction.figures.runs import about

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.evaluation.snapshot import Snapshot
    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement

STATEMENTS = ("collapses", "disperses", "information", "concentrated")
SENTENCES = 300  # unless settings.points says another number
EARLY = 5  # the first picture is at this part of the way to the second
UNITS = {"distinct": "components in use that are apart", "distance": "σ from own component"}
ONE, SEVERAL = 1.5, 2.0  # components in use that are apart: up to, and from


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """Take two moments of every row's training; needs a latent of two dimensions."""
    from uncollapse.evaluation.snapshot import read_snapshots

    (corpus,) = published.corpora
    count = int(published.settings.get("points", SENTENCES))
    panels: dict[str, list[dict[str, Any]]] = {}
    for row in published.rows:
        if runs.record(row.label, corpus, seed) is None:
            continue
        snapshots = [s for s in read_snapshots(runs.run(row.label, corpus, seed)) if s.step > 0]
        if snapshots:
            panels[row.label] = [
                _values(snapshot, count) for snapshot in _early_and_late(snapshots)
            ]
    late = {label: moments[-1] for label, moments in panels.items()}
    shown = max((len(moment["means"]) for moment in late.values()), default=0)
    told = about(published, runs, [seed], f"n = {shown} validation sentences")
    head = ["system", "updates", *UNITS.values()]
    rows = [
        [label, f"{moment['step']:,}", f"{moment['distinct']:.2f}", f"{moment['distance']:.2f}"]
        for label, moments in panels.items()
        for moment in moments
    ]
    return Drawn({"about": told, "panels": panels}, _judge(published, late), table(head, rows))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A column a system on axes of its own, early above late; ellipses are one and two σ."""
    from matplotlib.figure import Figure

    from uncollapse.plots.component_geometry import group_of, view_of
    from uncollapse.plots.component_panel import draw_group
    from uncollapse.plots.style import style

    panels: dict[str, list[dict[str, Any]]] = values["panels"]
    columns = max(len(panels), 1)
    with style():
        figure = Figure(figsize=(0.4 + 3.0 * columns, 6.4), layout="constrained")
        told = f"{values['about']}; colours and numbers: components; ellipses: 1 and 2 σ"
        headline(figure, published, told)
        grid = figure.subplots(2, columns, squeeze=False)
        for column, (label, moments) in enumerate(panels.items()):
            groups = [group_of(_snapshot(moment), 0) for moment in moments]
            view = view_of(groups)
            for place, (moment, group) in enumerate(zip(moments, groups, strict=True)):
                # of a single moment the late place
                axes = grid[place + 2 - len(moments), column]
                draw_group(axes, group, view, "component", {})
                axes.set_title(f"{label}, {moment['step']:,} updates")
                axes.set_xlabel("z, dimension 1")
                axes.set_ylabel("z, dimension 2" if column == 0 else "")
            if len(moments) < 2:
                grid[0, column].set_axis_off()
        for axes in grid[:, len(panels) :].flat:
            axes.set_axis_off()
    return figure


def _early_and_late(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    late = snapshots[-1]
    if len(snapshots) == 1:
        return [late]
    early = min(snapshots[:-1], key=lambda s: abs(math.log(s.step * EARLY / late.step)))
    return [early, late]


def _values(snapshot: Snapshot, count: int) -> dict[str, Any]:
    """The first group of a snapshot, and how far its components are apart."""
    from uncollapse.errors import UserError
    from uncollapse.plots.component_geometry import group_of

    group = group_of(snapshot, 0)
    if group.component is None or group.dim != 2:
        raise UserError("the figure of mode collapse needs mixtures in two dimensions")
    rows = np.linspace(0, len(group.points) - 1, min(count, len(group.points)))
    chosen = rows.round().astype(int)
    component = group.component[chosen]
    means = group.points[chosen]
    from_own = (means - group.centres[component]) / group.deviations[component]
    return {
        "step": snapshot.step,
        "means": short(means),
        "component": component.tolist(),
        "centres": short(group.centres),
        "deviations": short(group.deviations),
        "distinct": short(_distinct(group.centres, group.deviations, group.component)),
        # root mean square a dimension: 1 for draws from the component
        "distance": short(float(np.sqrt(np.square(from_own).mean()))),
    }


def _distinct(centres: np.ndarray, deviations: np.ndarray, component: np.ndarray) -> float:
    """Components in effective use, if near ones count as one; see `distinct_components`."""
    import torch

    from uncollapse.evaluation.mode_collapse import distinct_components

    variance = deviations**2  # (K, G)
    ratio = (variance[:, None] + (centres[:, None] - centres[None]) ** 2) / variance[None]
    kl = (ratio - 1 + np.log(variance[None] / variance[:, None])).sum(2) / 2  # (K, K)
    used = np.bincount(component, minlength=len(centres)) / len(component)  # (K,)
    symmetric = torch.from_numpy((kl + kl.T) / 2)
    return distinct_components(symmetric[None], torch.from_numpy(used)[None])


def _snapshot(moment: dict[str, Any]) -> Snapshot:
    from uncollapse.evaluation.snapshot import Snapshot

    return Snapshot(
        latent="z",
        step=moment["step"],
        means=np.array(moment["means"], np.float32),
        component=np.array(moment["component"])[:, None],
        labels=None,
        label_names=(),
        component_means=np.array([moment["centres"]], np.float32),
        component_deviations=np.array([moment["deviations"]], np.float32),
        deviation=None,
    )


def _judge(published: Published, late: dict[str, dict[str, Any]]) -> list[Judgement]:
    """Of the last moment; ``settings.roles`` names the rows."""
    roles: dict[str, str] = published.settings["roles"]
    plain, informed, dispersed = (roles[key] for key in ("plain", "informed", "dispersed"))
    both = roles["both"]

    def say(key: str, rows: Sequence[str], answer: Any, what: str) -> Judgement:
        text = statement(published, key)
        missing = [row for row in rows if row not in late]
        if missing:
            return lacking(text, missing)
        seen = [f"{row} {late[row][what]:.2f}" for row in rows]
        unit = "components in use that are apart" if what == "distinct" else "σ from own component"
        return judged(
            text, answer(*(late[row][what] for row in rows)), f"{unit}: {', '.join(seen)}"
        )

    def apart(*values: float) -> bool | None:
        return beyond(min(values), ONE, SEVERAL)

    def melted(value: float) -> bool | None:
        return beyond(-value, -SEVERAL, -ONE)

    return [
        say("collapses", [plain], melted, "distinct"),
        say("disperses", [dispersed, both], apart, "distinct"),
        say("information", [informed, plain], lambda a, b: beyond(a - b, 0, 0.5), "distinct"),
        say("concentrated", [informed, dispersed], lambda a, b: a < b, "distance"),
    ]
