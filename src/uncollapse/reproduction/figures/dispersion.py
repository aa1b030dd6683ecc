"""The dispersion term of two components, Gaussian and categorical: nothing is trained.

Shi et al. 2020 (DEM-VAE), Figure 3: L_d over the parameters of either component, with equal
weights. ``settings.families`` names the families of `uncollapse.plots.dispersion_planes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.reproduction.figures.drawn import (
    Drawn,
    headline,
    judged,
    short,
    statement,
    table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published

STATEMENTS = ("vanishes", "grows", "gradients")
POINTS = 41
NOISE = 1e-9  # nats: of arithmetic


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:  # noqa: ARG001
    """L_d and Var on a grid of two parameters, and which way both fall."""
    from uncollapse.plots.dispersion import landscape
    from uncollapse.plots.dispersion_planes import plane_of

    weight = float(published.settings.get("weight", 0.5))
    panels, facts = [], []
    for family, title in published.settings["families"].items():
        found = landscape(family, weight, POINTS)
        plane = plane_of(family)
        panels.append(
            {
                "family": family,
                "title": title,
                "x": short(found.x),
                "y": short(found.y),
                "x_name": plane.x.name,
                "y_name": plane.y.name,
                "dispersion": short(found.dispersion),
                "variance": short(found.variance),
            }
        )
        same = np.abs(np.diag(found.dispersion)).max()
        apart = found.dispersion[~np.eye(POINTS, dtype=bool)].min()
        facts.append((title, same, apart, _monotone(found.dispersion), _alignment(family, weight)))
    judgements = [
        judged(
            statement(published, "vanishes"),
            all(same < NOISE and apart > NOISE for _, same, apart, _, _ in facts),
            "; ".join(
                f"{title}: at most {same:.1e} nats where both are the same, at least {apart:.1e} "
                "elsewhere on the grid"
                for title, same, apart, _, _ in facts
            ),
        ),
        judged(
            statement(published, "grows"),
            all(share == 1 for _, _, _, share, _ in facts),
            "; ".join(
                f"{title}: one component held, L_d grows in {share:.1%} of the steps of the other "
                "away from it"
                for title, _, _, share, _ in facts
            ),
        ),
        judged(
            statement(published, "gradients"),
            all(least > -NOISE for *_, least in facts),
            "; ".join(
                f"{title}: cosine of the two gradients at least {least:.2f}"
                for title, *_, least in facts
            ),
        ),
    ]
    about = f"two components, weights {weight:g} and {1 - weight:g}: a closed form, no data"
    corners = [
        [title, f"{np.max(panel['dispersion']):.3g}", f"{np.max(panel['variance']):.3g}"]
        for panel, (title, *_) in zip(panels, facts, strict=True)
    ]
    head = ["components", "greatest L_d on the grid (nats)", "greatest Var"]
    return Drawn({"about": about, "panels": panels}, judgements, table(head, corners))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """L_d as colours, a panel a family; the dashes are where the components are the same."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from uncollapse.plots.style import INK, style

    panels = values["panels"]
    with style():
        figure = Figure(figsize=(0.6 + 4.2 * len(panels), 4.0), layout="constrained")
        headline(figure, published, values["about"])
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels,
                               strict=True):  # fmt: skip
            x, y, heights = (np.array(panel[key]) for key in ("x", "y", "dispersion"))
            levels = MaxNLocator(10).tick_values(0, heights.max())
            filled = axes.contourf(x, y, heights, levels, cmap="Blues")
            axes.contour(x, y, heights, levels, colors="white", linewidths=0.6)
            bar = figure.colorbar(filled, ax=axes, aspect=28, pad=0.02)
            bar.set_label("L_d (nats)")
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
            axes.plot(x[[0, -1]], y[[0, -1]], color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
            axes.annotate(
                "the same: L_d = 0", (0.3, 0.3), xycoords="axes fraction", color=INK, fontsize=8,
                rotation=45, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9},
            )  # fmt: skip
            axes.set(title=panel["title"], xlabel=panel["x_name"], ylabel=panel["y_name"])
            axes.set_box_aspect(1)
    return figure


def _monotone(dispersion: np.ndarray) -> float:
    """Share of the steps of the second component away from the first in which L_d grows."""
    steps = np.diff(dispersion, axis=0)  # (Y - 1, X)
    above = np.tri(*steps.shape, dtype=bool)  # the second component begins where the first is
    away = np.where(above, steps, -steps)
    return float((away > 0).mean())


def _alignment(family: str, weight: float) -> float:
    """The least cosine between ∇L_d and ∇Var by the natural parameters, off the diagonal."""
    import torch

    from uncollapse.plots.dispersion_planes import plane_of

    plane = plane_of(family)
    weights = torch.tensor([weight, 1 - weight], dtype=torch.float64)
    places = torch.meshgrid(plane.x.values(POINTS), plane.y.values(POINTS), indexing="xy")
    naturals = plane.naturals(*places).detach().requires_grad_()  # (Y, X, 2, P)
    slopes = []
    for measure in (plane.family.dispersion, plane.family.weighted_variance):
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(measure(weights, naturals).sum(), naturals)
        slopes.append(slope.flatten(2))  # (Y, X, 2 P)
    cosine = torch.nn.functional.cosine_similarity(*slopes, dim=-1)
    return float(cosine[~torch.eye(POINTS, dtype=torch.bool)].min())
