"""Inference against the model's own posterior through training: BN-VAEs with other scales γ.

Zhu et al. 2020 (BN-VAE), Figure 2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.drawn import Drawn, beyond, every, judged, lacking, statement
from uncollapse.reproduction.figures.moments import (
    draw_moments,
    moments,
    moments_table,
    summaries,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement

STATEMENTS = ("alive", "diverse", "zero")
NOTHING, SOMETHING = 0.1, 0.3  # prior standard deviations


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """Both posterior means at some moments of every row's training."""
    values = moments(published, runs, seed)
    return Drawn(values, _judge(published, values["rows"]), moments_table(values))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A row a scale, a column a moment."""
    return draw_moments(published, values)


def _judge(published: Published, rows: dict[str, list[dict[str, Any]]]) -> list[Judgement]:
    """``settings.gamma`` says the scale of every row."""
    gamma: dict[str, float] = published.settings["gamma"]
    alive = sorted((label for label in gamma if gamma[label] > 0), key=lambda label: -gamma[label])
    dead = [label for label in gamma if gamma[label] == 0]
    found = {label: s for label in gamma if label in rows for s in summaries(rows, [label])}

    def say(key: str, wanted: list[str], least: int, holds: Any) -> Judgement:
        text = statement(published, key)
        here = [label for label in wanted if label in found]
        if len(here) < least:
            return lacking(text, [label for label in wanted if label not in found])
        seen = (
            f"{label}: q {found[label]['inference']:.2f} σ, p {found[label]['model']:.2f} σ, "
            f"correlation {found[label]['correlation']:.2f}"
            for label in here
        )
        return judged(text, holds([found[label] for label in here]), "; ".join(seen))

    return [
        say("alive", alive, 1, lambda known: every(
            every([beyond(s["model"], NOTHING, SOMETHING), beyond(s["correlation"], 0.5, 0.9)])
            for s in known
        )),
        say("diverse", alive, 2, lambda known: every(
            a["inference"] > b["inference"] for a, b in pairwise(known)
        )),
        say("zero", dead, 1, lambda known: every(
            beyond(-max(s["inference"], s["model"]), -SOMETHING, -NOTHING) for s in known
        )),
    ]  # fmt: skip
