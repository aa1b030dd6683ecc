"""KL, mutual information and what is between them, through training.

Zhu et al. 2020 (BN-VAE), Figure 3: KL = MI + KL(q(z) ‖ p(z)) on Yelp, for a VAE, one with
aggressive training, and a BN-VAE, all annealed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.courses import courses, last, plot_course, whole_epochs
from uncollapse.reproduction.figures.drawn import (
    Drawn,
    beyond,
    every,
    headline,
    judged,
    lacking,
    per_seed,
    statement,
    table,
)
from uncollapse.reproduction.figures.runs import about

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.courses import Course
    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement

STATEMENTS = ("rises_empty", "collapses", "informed")
NAMES = {"kl": "KL in the ELBO", "mi": "mutual information", "aggregate": "KL(q(z) ‖ p(z))"}
LITTLE, MUCH = 0.5, 1.0  # nats
SMALL_SHARE, LARGE_SHARE = 0.5, 0.75  # of the KL that is mutual information


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:  # noqa: ARG001
    """The history of all runs, of every seed."""
    (corpus,) = published.corpora
    rows = courses(published, runs, corpus, ("kl", "mi"))
    for own in rows.values():
        for course in own:
            pairs = zip(course["kl"], course["mi"], strict=True)
            course["aggregate"] = [round(kl - mi, 4) for kl, mi in pairs]
    told = about(published, runs, runs.seeds, "validation set after each epoch")
    lines = [
        [label, name, *(per_seed(values) for values in (first, highest, final))]
        for label, own in rows.items()
        for key, name in NAMES.items()
        for first, highest, final in [
            ([c[key][0] for c in own], [max(c[key]) for c in own], last(own, key))
        ]
    ]
    head = ["system", "nats", "after the first epoch", "highest", "after the last"]
    values = {"about": told, "rows": rows}
    return Drawn(values, _judge(published, rows), table(head, lines))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A panel a system, three lines a seed; one axis for all, so that they compare."""
    from matplotlib.figure import Figure

    from uncollapse.plots.style import LINES, colour, style

    rows: dict[str, list[Course]] = values["rows"]
    count = max(len(rows), 1)
    with style():
        figure = Figure(figsize=(1.0 + 2.6 * count, 3.5), layout="constrained")
        headline(figure, published, values["about"])
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for axes, (label, own) in zip(panels, rows.items(), strict=False):
            axes.set_title(label)
            axes.grid(axis="y")
            whole_epochs(axes)
            for number, (key, name) in enumerate(NAMES.items()):
                how = {"marker": "os^"[number], "linestyle": LINES[number][0], "label": name}
                plot_course(axes, own, key, color=colour(number), **how)
        low, high = panels[0].get_ylim()
        # a KL of 0.1 must not fill the picture
        panels[0].set_ylim(min(low, -0.02), max(high, 1.0))
        panels[0].set_ylabel("nats per sentence")
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside lower left", ncols=3, handlelength=2.8)
    return figure


def _judge(published: Published, rows: dict[str, list[Course]]) -> list[Judgement]:
    """``settings.baseline`` is the annealed VAE, which loses its latent."""
    plain = published.settings["baseline"]
    others = [row.label for row in published.rows if row.label != plain]
    rises, collapses, informed = (statement(published, key) for key in STATEMENTS)
    if plain in rows:
        own = rows[plain]
        tops = [max(range(len(c["kl"])), key=c["kl"].__getitem__) for c in own]
        kl = [c["kl"][top] for c, top in zip(own, tops, strict=True)]
        mi = [c["mi"][top] for c, top in zip(own, tops, strict=True)]
        empty = every(
            every([beyond(k, LITTLE, MUCH), beyond(-m / max(k, 1e-6), -LARGE_SHARE, -SMALL_SHARE)])
            for k, m in zip(kl, mi, strict=True)
        )
        final = last(own, "kl")
        found = [
            judged(rises, empty, f"where the KL is highest: KL {per_seed(kl)}, MI {per_seed(mi)}"),
            judged(
                collapses,
                every(beyond(-value, -MUCH, -LITTLE) for value in final),
                f"KL after the last epoch {per_seed(final)} nats",
            ),
        ]
    else:
        found = [lacking(rises, [plain]), lacking(collapses, [plain])]
    here = [label for label in others if label in rows]
    if not here:
        return [*found, lacking(informed, others)]
    answers, seen = [], []
    for label in here:
        kl, mi = last(rows[label], "kl"), last(rows[label], "mi")
        for k, m in zip(kl, mi, strict=True):
            answers += [beyond(m, LITTLE, MUCH), beyond(m / max(k, 1e-6), SMALL_SHARE, LARGE_SHARE)]
        seen.append(f"{label}: KL {per_seed(kl)}, MI {per_seed(mi)}")
    return [*found, judged(informed, every(answers), "; ".join(seen))]
