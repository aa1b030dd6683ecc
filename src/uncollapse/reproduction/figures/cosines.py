"""How alike the encoder's features of sentences are through training, and the KL.

Long et al. 2019 (pooling), Figure 3: mean pairwise cosine of the features of the validation
sentences, and their KL, on Yahoo and Yelp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.courses import courses, last, plot_course, whole_epochs
from uncollapse.reproduction.figures.drawn import (
    Drawn,
    beyond,
    every,
    exceeds,
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

STATEMENTS = ("alike", "collapses", "alive")
QUANTITIES = {"cosine": "mean pairwise cosine", "kl": "KL (nats per sentence)"}
LITTLE, MUCH = 0.5, 1.0  # nats


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:  # noqa: ARG001
    """The history of all runs, of every seed, on every corpus that is here."""
    from uncollapse.training.validation import COSINE_SENTENCES

    panels = {
        corpus: found
        for corpus in published.corpora
        if (found := courses(published, runs, corpus, tuple(QUANTITIES)))
    }
    n = f"cosine over pairs of n ≤ {COSINE_SENTENCES} validation sentences"
    told = about(published, runs, runs.seeds, n)
    lines = [
        [published.corpora[corpus], label, per_seed(last(own, "cosine")), per_seed(last(own, "kl"))]
        for corpus, rows in panels.items()
        for label, own in rows.items()
    ]
    head = ["corpus", "system", "cosine after the last epoch", "KL after the last epoch"]
    judgements = [
        one
        for corpus, name in published.corpora.items()
        if corpus in panels or not panels
        for one in _judge(published, name, panels.get(corpus, {}))
    ]
    values = {"about": told, "corpora": {c: published.corpora[c] for c in panels}, "panels": panels}
    return Drawn(values, judgements, table(head, lines))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """Cosine and KL side by side, a row a corpus."""
    from matplotlib.figure import Figure

    from uncollapse.plots.style import LINES, colour, style

    panels: dict[str, dict[str, list[Course]]] = values["panels"]
    numbers = {row.label: number for number, row in enumerate(published.rows)}
    count = max(len(panels), 1)
    with style():
        figure = Figure(figsize=(7.4, 1.0 + 2.5 * count), layout="constrained")
        headline(figure, published, values["about"])
        grid = figure.subplots(count, 2, squeeze=False)
        for line, (corpus, rows) in zip(grid, panels.items(), strict=False):
            for axes, (quantity, name) in zip(line, QUANTITIES.items(), strict=True):
                axes.set_title(values["corpora"][corpus])
                axes.grid(axis="y")
                axes.set_ylabel(name)
                whole_epochs(axes)
                for label, own in rows.items():
                    number = numbers.get(label, len(numbers))
                    how = {"marker": "os^Dv"[number % 5], "linestyle": LINES[number % 3][0]}
                    plot_course(axes, own, quantity, color=colour(number), label=label, **how)
                low, high = axes.get_ylim()
                # a KL of 0.1 must not fill the picture, nor a cosine that hardly changes
                axes.set_ylim(min(low, -0.02), max(high, 1.0))
        named = dict(
            zip(*reversed(grid.flat[0].get_legend_handles_labels()), strict=True)
        )  # {label: handle}
        if named:
            figure.legend(
                named.values(), named.keys(), loc="outside lower left", ncols=5, handlelength=2.8
            )
    return figure


def _judge(published: Published, corpus: str, rows: dict[str, list[Course]]) -> list[Judgement]:
    """``settings.baseline`` is the VAE without pooling."""
    plain = published.settings["baseline"]
    others = [row.label for row in published.rows if row.label != plain]
    pooled = [label for label in others if label in rows]
    alike, collapses, alive = (statement(published, key) for key in STATEMENTS)
    missing = [label for label in (plain, *others) if label not in rows]
    ends = {label: last(own, "cosine") for label, own in rows.items()}
    kl = {label: last(own, "kl") for label, own in rows.items()}
    seen = ", ".join(f"{label} {per_seed(values)}" for label, values in ends.items())
    found = []
    if plain in rows and pooled:
        # seeds may be lacking: then what is here is compared by its means
        answers = [
            exceeds(ends[plain], ends[label])
            if len(ends[plain]) == len(ends[label])
            else exceeds([_mean(ends[plain])], [_mean(ends[label])])
            for label in pooled
        ]
        evidence = f"cosine after the last epoch: {seen}"
        found.append(judged(alike, every(answers), evidence, corpus))
    else:
        found.append(lacking(alike, missing, corpus))
    if plain in rows:
        holds = every(beyond(-value, -MUCH, -LITTLE) for value in kl[plain])
        evidence = f"KL after the last epoch: {plain} {per_seed(kl[plain])} nats"
        found.append(judged(collapses, holds, evidence, corpus))
    else:
        found.append(lacking(collapses, [plain], corpus))
    if not pooled:
        return [*found, lacking(alive, others, corpus)]
    holds = every(beyond(value, LITTLE, MUCH) for label in pooled for value in kl[label])
    told = ", ".join(f"{label} {per_seed(kl[label])}" for label in pooled)
    return [*found, judged(alive, holds, f"KL after the last epoch: {told} nats", corpus)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
