"""How near what is written between two sentences is to either.

Li et al. 2020 (TWR-VAE), Figure 2: ROUGE F1 against both at 11 points α, BN-VAE and TWR-VAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.reproduction.figures.drawn import (
    Drawn,
    every,
    headline,
    judged,
    lacking,
    short,
    statement,
    table,
)
from uncollapse.reproduction.figures.runs import about, seeds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.verdicts import Judgement
    from uncollapse.text_vae import TextVAE

STATEMENTS = ("smooth", "ends")
NOISE = 2.0  # standard errors that a difference must exceed


@dataclass(frozen=True)
class Curves:
    """What `interpolation_curves` draws of a system."""

    shares: np.ndarray
    means: dict[str, np.ndarray]
    deviations: dict[str, np.ndarray]

    def curves(self, name: str) -> np.ndarray:
        """Mean F1 against the first and the second sentence, ``(2, A)``."""
        return self.means[name]

    def errors(self, name: str) -> np.ndarray:
        """Their standard errors over pairs, ``(2, A)``."""
        return self.deviations[name]


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """Interpolate between random pairs of test sentences, the same for all systems and seeds.

    Of several seeds the mean is taken pair by pair: the error is over pairs.
    """
    (corpus,) = published.corpora
    rows: dict[str, dict[str, Any]] = {}
    for row in published.rows:
        found = [
            _scores(runs.model(row.label, corpus, number), str(runs.files(corpus)["test"]), seed)
            for number in seeds_of(runs, row.label, corpus)
        ]
        if not found:
            continue
        shares = found[0][0]
        scores = {  # {name: (P, 2, A)}
            name: np.mean([own[name] for _, own in found], axis=0) for name in found[0][1]
        }
        pairs = len(next(iter(scores.values())))
        rows[row.label] = {
            "shares": short(shares),
            "pairs": pairs,
            "seeds": len(found),
            "means": {name: short(values.mean(0)) for name, values in scores.items()},
            "errors": {
                name: short(values.std(0, ddof=1) / np.sqrt(pairs) if pairs > 1 else 0 * values[0])
                for name, values in scores.items()
            },
        }
    count = max((own["pairs"] for own in rows.values()), default=0)
    told = about(published, runs, runs.seeds, f"n = {count} pairs of test sentences")
    return Drawn({"about": told, "rows": rows}, _judge(published, rows), _table(rows))


def draw(published: Published, values: dict[str, Any]) -> Figure:
    """A panel a figure; bands are one standard error over pairs."""
    from uncollapse.plots.probes import interpolation_curves
    from uncollapse.plots.style import style

    systems = {label: _curves(own) for label, own in values["rows"].items()}
    figure = interpolation_curves(systems)
    with style():
        figure.set_figheight(3.8)
        headline(figure, published, values["about"])
    return figure


def _scores(vae: TextVAE, sentences: str, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    from uncollapse.evaluation.interpolation import interpolate_pairs
    from uncollapse.loading import corpus_of

    config = vae.recipe.data.model_copy(update={"label_column": None})
    corpus = corpus_of(sentences, vae.tokenizer, config)
    found = interpolate_pairs(vae.model, corpus, vae.tokenizer, seed=seed)
    return found.shares, found.scores


def _curves(own: dict[str, Any]) -> Curves:
    def arrays(key: str) -> dict[str, np.ndarray]:
        return {name: np.array(values, np.float64) for name, values in own[key].items()}

    return Curves(np.array(own["shares"]), arrays("means"), arrays("errors"))


def _judge(published: Published, rows: dict[str, dict[str, Any]]) -> list[Judgement]:
    """``settings.better`` and ``settings.worse`` are the two rows."""
    better, worse = published.settings["better"], published.settings["worse"]
    smooth, ends = statement(published, "smooth"), statement(published, "ends")
    if better not in rows:
        return [lacking(smooth, [better]), lacking(ends, [better])]
    own = _curves(rows[better])
    # along the first curve it must fall, along the second rise; a step back counts if it is
    # more than noise, and of the whole way no step may be half
    answers, seen = [], []
    for name, curves in own.means.items():
        both = zip((-1, 1), ("first", "second"), curves, own.deviations[name], strict=True)
        for sign, which, curve, error in both:
            steps = sign * np.diff(curve)
            noise = NOISE * np.hypot(error[1:], error[:-1])
            whole = sign * (curve[-1] - curve[0])
            back = float((-steps).max())
            answers.append(bool(whole > 0 and np.all(steps > -noise) and steps.max() < whole / 2))
            course = f"{curve[0]:.1f} → {curve[-1]:.1f}, steps back of {max(back, 0):.1f} at most"
            seen.append(f"ROUGE-{name.upper()} with the {which} {course}")
    judgement = judged(smooth, every(answers), f"{better}: {'; '.join(seen)}")
    if worse not in rows:
        return [judgement, lacking(ends, [worse])]
    other = _curves(rows[worse])
    leads, told = [], []
    for name in own.means:
        for end, place in ((0, 0), (1, -1)):
            gain = own.means[name][end, place] - other.means[name][end, place]
            error = np.hypot(own.deviations[name][end, place], other.deviations[name][end, place])
            leads.append(None if abs(gain) <= NOISE * error else bool(gain > 0))
            told.append(f"ROUGE-{name.upper()} at α = {end}: {gain:+.1f} ± {error:.1f}")
    return [judgement, judged(ends, every(leads), f"{better} less {worse}: {'; '.join(told)}")]


def _table(rows: dict[str, dict[str, Any]]) -> str:
    head = ["system", "F1 against", *(f"α = {share:g}" for share in np.linspace(0, 1, 11).round(1))]
    lines = [
        [label, f"{which} sentence, ROUGE-{name.upper()}", *(f"{value:.1f}" for value in curve)]
        for label, own in rows.items()
        for name, curves in own["means"].items()
        for which, curve in zip(("first", "second"), curves, strict=True)
    ]
    return table(head, lines)
