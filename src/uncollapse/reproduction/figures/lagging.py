"""Inference against the model's own posterior through training: a VAE, and BN-VAEs with γ = 1.

Zhu et al. 2020 (BN-VAE), Figure 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.drawn import Drawn, beyond, every, judged, lacking, statement
from uncollapse.reproduction.figures.moments import (
    draw_moments,
    moments,
    moments_table,
    summaries,
    summary,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement

STATEMENTS = ("independent", "lags", "collapses", "catches_up", "batch_sizes")
# prior standard deviations
TINY, NOTHING, LITTLE, SOMETHING = 1e-6, 0.1, 0.2, 0.3
LAG = 4.0  # the model's own means differ so many times as much as inference's
ALIKE = 0.2  # gaps that differ by less differ little


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """Both posterior means at some moments of every row's training."""
    values = moments(published, runs, seed)
    return Drawn(values, _judge(published, values["rows"]), moments_table(values))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A row a system, a column a moment."""
    return draw_moments(published, values)


def _judge(published: Published, rows: dict[str, list[dict[str, Any]]]) -> list[Judgement]:
    """``settings.baseline`` is the plain VAE; all other rows are batch-normalised."""
    plain = published.settings["baseline"]
    others = [row.label for row in published.rows if row.label != plain]
    normed = [label for label in others if label in rows]
    return [
        _independent(statement(published, "independent"), rows),
        *_of_plain(published, plain, rows),
        _catches_up(statement(published, "catches_up"), others, normed, rows),
        _batch_sizes(statement(published, "batch_sizes"), others, normed, rows),
    ]


def _independent(text: str, rows: dict[str, list[dict[str, Any]]]) -> Judgement:
    first = {label: summary(own[0])["offset"] for label, own in rows.items() if own[0]["step"] == 0}
    if not first:
        return lacking(text, ["a snapshot before training"])
    evidence = "root mean square of the means of p(z|x) before training: "
    evidence += ", ".join(f"{label} {value:.2f} σ" for label, value in first.items())
    holds = every(beyond(-value, -SOMETHING, -LITTLE) for value in first.values())
    return judged(text, holds, evidence)


def _of_plain(
    published: Published, plain: str, rows: dict[str, list[dict[str, Any]]]
) -> list[Judgement]:
    lags, collapses = statement(published, "lags"), statement(published, "collapses")
    if plain not in rows:
        return [lacking(lags, [plain]), lacking(collapses, [plain])]
    course = [summary(moment) for moment in rows[plain]]
    spread = [s for s in course if s["model"] >= SOMETHING] or course
    # where inference says least of what the model says
    widest = max(spread, key=lambda s: s["model"] / max(s["inference"], TINY))
    evidence = f"{plain}: means of p(z|x) differ by {widest['model']:.2f} σ where those of "
    evidence += f"q(z|x) differ by {widest['inference']:.2f} σ"
    holds = None  # where z never told of the sentence, nothing could lag
    if widest["model"] >= SOMETHING:
        holds = beyond(widest["model"] / max(widest["inference"], TINY), 1.0, LAG)
    last = course[-1]
    end = f"{plain}, finished: means of q(z|x) differ by {last['inference']:.2f} σ"
    return [
        judged(lags, holds, evidence),
        judged(collapses, beyond(-last["inference"], -SOMETHING, -NOTHING), end),
    ]


def _catches_up(text: str, wanted: list[str], found: list[str], rows: Any) -> Judgement:
    if not found:
        return lacking(text, wanted)
    last = summaries(rows, found)
    holds = every(
        every([beyond(s["inference"], NOTHING, SOMETHING), beyond(s["correlation"], 0.5, 0.9)])
        for s in last
    )
    seen = (
        f"{label}: q {s['inference']:.2f} σ, p {s['model']:.2f} σ, correlation "
        f"{s['correlation']:.2f}, gap {s['gap']:.2f} σ"
        for label, s in zip(found, last, strict=True)
    )
    return judged(text, holds, "; ".join(seen))


def _batch_sizes(text: str, wanted: list[str], found: list[str], rows: Any) -> Judgement:
    if len(found) < 2:
        return lacking(text, [label for label in wanted if label not in found])
    gaps = [s["gap"] for s in summaries(rows, found)]
    seen = (f"{label} {gap:.2f} σ" for label, gap in zip(found, gaps, strict=True))
    holds = beyond(min(gaps) - max(gaps), -2 * ALIKE, -ALIKE)
    return judged(text, holds, f"mean distance of the two means, finished: {', '.join(seen)}")
