"""What encoders with three hidden units make of sentences: with and without pooling.

Long et al. 2019 (pooling), Figure 2: the features of the validation sentences of Yelp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.errors import UserError
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

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement
    from uncollapse.text_vae import TextVAE

STATEMENTS = ("concentrated", "varied")
SENTENCES = 1_000
UNITS = 3
WIDER = 2.0  # times as spread out
LEAST = 0.05  # half the width of a cube, of the 1 that it can be


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """The features of every system."""
    (corpus,) = published.corpora
    rows = {
        row.label: _features(
            runs.model(row.label, corpus, seed), str(runs.files(corpus)["validation"])
        )
        for row in published.rows
        if runs.record(row.label, corpus, seed) is not None
    }
    shown = max((len(points) for points in rows.values()), default=0)
    told = about(published, runs, [seed], f"n = {shown} validation sentences")
    head = ["system", *(f"σ of unit {unit + 1}" for unit in range(UNITS)), "σ of all together"]
    spreads = {label: _spread(points) for label, points in rows.items()}
    lines = [
        [label, *(f"{value:.4f}" for value in (*along, whole))]
        for label, (along, whole) in spreads.items()
    ]
    values = {"about": told, "rows": {label: short(points, 3) for label, points in rows.items()}}
    return Drawn(values, _judge(published, spreads), table(head, lines))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A cube a system; all cubes hold the same part of the space, which holds all points."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from uncollapse.plots.style import FAINT, colour, style

    rows = {label: np.array(points) for label, points in values["rows"].items()}
    every = np.concatenate([*rows.values()]) if rows else np.zeros((1, UNITS))
    middle = (every.min(0) + every.max(0)) / 2
    half = 1.05 * max(float(np.ptp(every, axis=0).max()) / 2, LEAST)
    low, high = middle - half, middle + half
    # shadows on the walls: a point in space has no place on paper
    walls = ((0, low[0]), (1, high[1]), (2, low[2]))
    count = max(len(rows), 1)
    with style():
        figure = Figure(figsize=(0.6 + 3.6 * count, 4.0), layout="constrained")
        headline(figure, published, values["about"])
        for number, (label, points) in enumerate(rows.items()):
            axes: Any = figure.add_subplot(1, count, number + 1, projection="3d")
            for axis, place in walls:
                shadow = points.copy()
                shadow[:, axis] = place
                axes.scatter(*shadow.T, s=3, color=FAINT, alpha=0.5, linewidths=0, zorder=0)
            axes.scatter(*points.T, s=5, color=colour(number), alpha=0.5, linewidths=0)
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
            axes.set(xlabel="hidden unit 1", ylabel="hidden unit 2", zlabel="hidden unit 3")
            for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
                axis.set_major_locator(MaxNLocator(nbins=4))
                axis.pane.set_facecolor("white")
            axes.set_box_aspect((1, 1, 1), zoom=0.86)
            axes.set_title(label)
    return figure


def _features(vae: TextVAE, sentences: str) -> np.ndarray:
    """``(N, 3)``."""
    from uncollapse.evaluation.geometry import sentence_features
    from uncollapse.loading import corpus_of

    config = vae.recipe.data.model_copy(update={"label_column": None})
    corpus = corpus_of(sentences, vae.tokenizer, config)
    rows = np.linspace(0, len(corpus) - 1, min(SENTENCES, len(corpus))).round().astype(np.int64)
    found = sentence_features(vae.model, corpus.select(rows))
    if found is None or found[0].shape[1] != UNITS:
        raise UserError(f"the picture of features needs encoders with {UNITS} hidden units")
    return found[0].double().numpy()


def _spread(points: np.ndarray) -> tuple[list[float], float]:
    """Standard deviations along every unit, and of all units together."""
    along = points.std(0)
    return along.tolist(), float(np.sqrt(np.square(along).sum()))


def _judge(published: Published, spreads: dict[str, tuple[list[float], float]]) -> list[Judgement]:
    """``settings.baseline`` is the VAE without pooling, ``settings.pooled`` that with it."""
    plain, pooled = published.settings["baseline"], published.settings["pooled"]
    concentrated, varied = (statement(published, key) for key in STATEMENTS)
    missing = [label for label in (plain, pooled) if label not in spreads]
    if missing:
        return [lacking(concentrated, missing), lacking(varied, missing)]
    (before, narrow), (along, wide) = spreads[plain], spreads[pooled]
    ratio = wide / max(narrow, 1e-12)
    return [
        judged(
            concentrated,
            beyond(ratio, 1.0, WIDER),
            f"σ of the features together: {plain} {narrow:.3f}, {pooled} {wide:.3f}",
        ),
        judged(
            varied,
            beyond(min(along) / max(*before, 1e-12), 0.5, 1.0),
            f"σ along each unit: {pooled} {', '.join(f'{value:.3f}' for value in along)}; "
            f"{plain} {', '.join(f'{value:.3f}' for value in before)}",
        ),
    ]
