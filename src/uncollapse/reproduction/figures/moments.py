"""Two posterior means of every sentence while training goes by: inference's, and the model's own.

He et al. 2019 introduced the picture; Zhu et al. 2020 (BN-VAE), Figures 1 and 2, draw 500
sentences of synthetic data for a VAE and for BN-VAEs. The moments of training are its snapshots,
and the last one is the finished model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.reproduction.figures.drawn import headline, short, table
from uncollapse.reproduction.figures.runs import about

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.evaluation.snapshot import Snapshot
    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.text_vae import TextVAE

SENTENCES = 500  # unless settings.points says another number
MOMENTS = 4  # columns, with the finished model
LEAST, MOST = 2.5, 6.0  # half the width of a panel, prior standard deviations
Moment = dict[str, Any]


def moments(published: Published, runs: Runs, seed: int) -> dict[str, Any]:
    """What is drawn: for every row, at every moment, both means of every sentence.

    In standard deviations of the prior.
    """
    from uncollapse.evaluation.snapshot import read_snapshots

    (corpus,) = published.corpora
    count = int(published.settings.get("points", SENTENCES))
    rows: dict[str, list[Moment]] = {}
    for row in published.rows:
        if runs.record(row.label, corpus, seed) is None:
            continue
        kept = read_snapshots(runs.run(row.label, corpus, seed))
        usable = [snapshot for snapshot in kept if snapshot.model_means is not None]
        places = np.linspace(0, len(usable) - 1, min(MOMENTS - 1, len(usable))).round()
        found = [_of_snapshot(usable[int(place)], count) for place in places]
        model = runs.model(row.label, corpus, seed)
        rows[row.label] = [*found, _of_model(model, str(runs.files(corpus)["validation"]), count)]
    shown = max((len(moment["model"]) for own in rows.values() for moment in own), default=0)
    told = about(published, runs, [seed], f"n = {shown} validation sentences")
    return {"about": told, "rows": rows}


def draw_moments(published: Published, values: dict[str, Any]) -> Figure:
    """A row a system, a column a moment, all on the same axes."""
    from matplotlib.figure import Figure

    from uncollapse.plots.style import FAINT, MUTED, colour, style

    rows: dict[str, list[Moment]] = values["rows"]
    columns = max((len(own) for own in rows.values()), default=1)
    points = [moment[key] for own in rows.values() for moment in own for key in KEYS]
    widest = max((float(np.quantile(np.abs(means), 0.995)) for means in points), default=0.0)
    limit = min(max(1.05 * widest, LEAST), MOST)
    with style():
        figure = Figure(
            figsize=(0.9 + 2.1 * columns, 1.0 + 2.2 * max(len(rows), 1)), layout="constrained"
        )
        headline(figure, published, values["about"])
        figure.supxlabel(
            "mean of the model's own posterior p(z|x) (σ of the prior)", color=MUTED, fontsize=9
        )
        figure.supylabel("mean of inference's q(z|x) (σ of the prior)", color=MUTED, fontsize=9)
        grid = figure.subplots(max(len(rows), 1), columns, sharex=True, sharey=True, squeeze=False)
        for line, (label, own) in zip(grid, rows.items(), strict=False):
            for axes in line[len(own) :]:
                axes.set_axis_off()
            for axes, moment in zip(line, own, strict=False):
                axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
                axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
                axes.plot((-limit, limit), (-limit, limit), color=MUTED, linewidth=0.8, zorder=1)
                axes.scatter(
                    moment["model"], moment["inference"], s=9, color=colour(0), alpha=0.6,
                    linewidths=0, zorder=2,
                )  # fmt: skip
                axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
                axes.set_box_aspect(1)
                axes.set_title(_when(moment), fontsize=8, color=MUTED, pad=3)
            line[0].text(
                0.03, 0.97, label, fontsize=9, ha="left", va="top", transform=line[0].transAxes,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9},
                zorder=3,
            )  # fmt: skip
    return figure


def moments_table(values: dict[str, Any]) -> str:
    """The spread of both means, how they go together, and how far apart they are."""
    head = ["system", "moment", "σ of p(z|x) means", "σ of q(z|x) means", "correlation", "gap"]
    lines = []
    for label, own in values["rows"].items():
        for moment in own:
            s = summary(moment)
            figures = (f"{s[key]:.2f}" for key in ("model", "inference", "correlation", "gap"))
            lines.append([label, _when(moment), *figures])
    return table(head, lines)


def summary(moment: Moment) -> dict[str, float]:
    """In standard deviations of the prior.

    ``model`` and ``inference``, how much the means of sentences differ; ``correlation`` of the
    two (0 where one says the same of all); ``gap``, their mean distance; ``offset``, the root mean
    square of the model's means.
    """
    exact, own = (np.array(moment[key], np.float64) for key in KEYS)
    spread = float(exact.std()), float(own.std())
    # what differs by rounding alone does not correlate
    related = min(spread) > 1e-3
    return {
        "model": spread[0],
        "inference": spread[1],
        "correlation": float(np.corrcoef(exact, own)[0, 1]) if related else 0.0,
        "gap": float(np.abs(exact - own).mean()),
        "offset": float(np.sqrt(np.square(exact).mean())),
    }


def summaries(rows: dict[str, list[Moment]], labels: Sequence[str]) -> list[dict[str, float]]:
    """Of the finished models of some rows."""
    return [summary(rows[label][-1]) for label in labels]


KEYS = ("model", "inference")


def _of_snapshot(snapshot: Snapshot, count: int) -> Moment:
    assert snapshot.model_means is not None
    deviation = 1.0 if snapshot.deviation is None else float(snapshot.deviation[0])
    every = len(snapshot.model_means)
    chosen = np.linspace(0, every - 1, min(count, every)).round().astype(int)
    return {
        "step": snapshot.step,
        "model": short(snapshot.model_means[chosen] / deviation, 3),
        "inference": short(snapshot.means[chosen, 0] / deviation, 3),
    }


def _of_model(vae: TextVAE, sentences: str, count: int) -> Moment:
    from uncollapse.evaluation.lagging import posterior_means
    from uncollapse.evaluation.snapshot import POINTS
    from uncollapse.loading import corpus_of

    corpus = corpus_of(sentences, vae.tokenizer, _unlabelled(vae))
    found = posterior_means(vae.model, corpus, sentences=count, points=POINTS)
    return {
        "step": None,
        "model": short(found.model / found.deviation, 3),
        "inference": short(found.approximate / found.deviation, 3),
    }


def _unlabelled(vae: TextVAE) -> Any:
    return vae.recipe.data.model_copy(update={"label_column": None})


def _when(moment: Moment) -> str:
    step = moment["step"]
    if step is None:
        return "finished"
    return f"after {step:,} updates" if step else "before training"
