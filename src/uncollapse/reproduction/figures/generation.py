"""Likelihood against reverse perplexity, a point a system.

Shi et al. 2020 (DEM-VAE), Figure 5: what is up and to the left is better in both.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from uncollapse.reproduction.figures.drawn import (
    Drawn,
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

STATEMENTS = ("boundary", "next")
FIGURES = ("nll", "reverse_ppl")
NOISE = 2.0  # standard errors that a difference must exceed


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:  # noqa: ARG001
    """Means over the seeds of every row that has both figures; bars are standard errors."""
    (corpus,) = published.corpora
    points, without = [], []
    for row in published.rows:
        records = [runs.record(row.label, corpus, number) for number in runs.seeds]
        found = [record for record in records if record is not None]
        measured = [[record.value(name) for record in found] for name in FIGURES]
        if not found or any(value is None for values in measured for value in values):
            without.append(row.label)
            continue
        (nll, nll_error), (ppl, ppl_error) = (
            _mean(values, [record.metrics[name].get("standard_error") for record in found])
            for name, values in zip(FIGURES, measured, strict=True)
        )
        point = {"ll": -nll, "ll_error": nll_error, "rppl": ppl, "rppl_error": ppl_error}
        numbers = {key: short(value) for key, value in point.items()}
        points.append({"label": row.label, "seeds": len(found), **numbers})
    told = about(published, runs, runs.seeds, f"n = {len(points)} systems")
    rows = [
        [p["label"], *(f"{p[k]:.4g} ± {p[f'{k}_error']:.2g}" for k in ("ll", "rppl"))]
        for p in points
    ]
    head = ["system", "log-likelihood (nats per sentence)", "reverse perplexity"]
    line = published.settings.get("line", [])
    values = {"about": told, "points": points, "without": without, "line": line}
    best, second, single = (published.settings[key] for key in ("best", "second", "single"))
    rest = [row.label for row in published.rows if row.label not in best]
    judgements = [
        _judge(published, "boundary", best, rest, points),
        _judge(published, "next", second, single, points),
    ]
    return Drawn(values, judgements, table(head, rows) + _lack(without))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """The points, named beside the axes: a colour a family, a shape a variant of it."""
    from matplotlib.figure import Figure

    from uncollapse.plots.style import MARKERS, MUTED, colour, style

    points: list[dict[str, Any]] = values["points"]
    placed = {point["label"]: (point["rppl"], point["ll"]) for point in points}
    line = [label for label in values["line"] if label in placed]
    families: dict[str, int] = {}
    with style():
        figure = Figure(figsize=(6.8, 4.2), layout="constrained")
        joined = f"; line: {', '.join(line)}" if len(line) > 1 else ""
        headline(figure, published, values["about"] + joined)
        axes = figure.subplots()
        axes.grid()
        axes.margins(0.08)
        if len(line) > 1:
            course = [placed[label] for label in line]
            axes.plot(*zip(*course, strict=True), color=MUTED, linewidth=1, zorder=1)
        for point in points:
            family = re.split(r" [+(]", point["label"])[0]
            variant = families.get(family, 0)
            families[family] = variant + 1
            axes.errorbar(
                point["rppl"], point["ll"], xerr=point["rppl_error"], yerr=point["ll_error"],
                color=colour(list(families).index(family)), elinewidth=0.9, linestyle="",
                marker=MARKERS[variant % len(MARKERS)][0], markersize=6.5, label=point["label"],
            )  # fmt: skip
        axes.set(xscale="log", xlabel="reverse perplexity (logarithmic; left is better)")
        low, high = axes.get_xlim()
        every = [step * 10.0**power for power in range(8) for step in (1, 1.5, 2, 3, 5, 7)]
        ticks = [tick for tick in every if low <= tick <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_ylabel("log-likelihood (nats per sentence; up is better)")
        if points:
            figure.legend(loc="outside right center", handletextpad=0.2)
    return figure


def _mean(values: list[Any], errors: list[float | None]) -> tuple[float, float]:
    """Mean and its standard error: over seeds, or of the one run's sentences."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, errors[0] or 0.0
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1) / len(values))


def _judge(
    published: Published, key: str, own: list[str], others: list[str], points: list[dict[str, Any]]
) -> Judgement:
    """Is one of the others better in both figures than one of our own, by more than noise?"""
    text = statement(published, key)
    placed = {point["label"]: point for point in points}
    ours, theirs = (
        [placed[label] for label in group if label in placed] for group in (own, others)
    )
    if not ours or not theirs:
        return lacking(text, own if not ours else others)
    leads = {
        f"{other['label']} than {point['label']}": _lead(other, point)
        for other in theirs
        for point in ours
    }
    surely = [pair for pair, lead in leads.items() if lead > NOISE]
    perhaps = [pair for pair, lead in leads.items() if 0 < lead <= NOISE]
    seen = [f"{point['label']} LL {point['ll']:.1f}, rPPL {point['rppl']:.0f}" for point in ours]
    evidence = f"{'; '.join(seen)}; better in both: {', '.join(surely) or 'none'}"
    if perhaps:
        evidence += f"; within {NOISE:g} standard errors: {', '.join(perhaps)}"
    return judged(text, False if surely else None if perhaps else True, evidence)


def _lead(other: dict[str, Any], point: dict[str, Any]) -> float:
    """By how many standard errors another point is better in that figure where it is less so."""
    likelihood, perplexity = other["ll"] - point["ll"], point["rppl"] - other["rppl"]
    errors = (
        math.hypot(other[key] or 0.0, point[key] or 0.0) or 1e-12
        for key in ("ll_error", "rppl_error")
    )
    return min(d / e for d, e in zip((likelihood, perplexity), errors, strict=True))


def _lack(without: list[str]) -> str:
    return f"\nWithout both figures: {', '.join(without)}.\n" if without else ""
