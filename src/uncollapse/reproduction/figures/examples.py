"""What is written on the way from one sentence to another, to be read.

Li et al. 2020 (TWR-VAE), Table 4: two test sentences of Yelp, and what BN-VAE and TWR-VAE write
between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.reproduction.figures.drawn import Drawn, judged, lacking, statement, table
from uncollapse.reproduction.figures.runs import about
from uncollapse.reproduction.verdicts import Judgement

if TYPE_CHECKING:
    from uncollapse.reproduction.figures.runs import Runs
    from uncollapse.reproduction.published import Published
    from uncollapse.text_vae import TextVAE

STATEMENTS = ("unknown", "consistent")
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LENGTHS = (6, 20)  # words of the sentences that are shown: what fits into a table
PAIRS = 100  # whose words are counted
NOISE = 2.0  # standard errors that a difference must exceed


def compute(published: Published, runs: Runs, *, seed: int = 0) -> Drawn:
    """Write between one pair of test sentences to be read, and between many to be counted."""
    (corpus,) = published.corpora
    rows: dict[str, list[str]] = {}
    unknown: dict[str, tuple[float, float]] = {}
    ends: list[str] = []
    pairs = 0
    for row in published.rows:
        if row.recipe is None or runs.record(row.label, corpus, seed) is None:
            continue
        vae = runs.model(row.label, corpus, seed)
        # the pairs depend on the texts alone: they are the same for every system
        first, second = _pairs(vae, str(runs.files(corpus)["test"]), seed)
        ends, pairs = [first[0], second[0]], len(first)
        written = _between(vae, first, second)  # (A, P)
        rows[row.label] = [texts[0] for texts in written]
        unknown[row.label] = _unknown(vae, written)
    told = about(published, runs, [seed], f"unknown words of n = {pairs} pairs")
    values = {
        "about": told,
        "sentences": ends,
        "shares": list(SHARES),
        "rows": rows,
        "unknown": {label: list(found) for label, found in unknown.items()},
    }
    return Drawn(values, _judge(published, unknown), _markdown(values))


def draw(published: Published, values: dict[str, Any]) -> None:  # noqa: ARG001
    """Nothing: the sentences are in the Markdown."""
    return


def _pairs(vae: TextVAE, source: str, seed: int) -> tuple[list[str], list[str]]:
    """Random pairs of test sentences of a length that can be read, no sentence in two."""
    from uncollapse.errors import UserError
    from uncollapse.loading import texts_of

    least, most = LENGTHS
    texts = [text for text in texts_of(source, vae.recipe.data) if text.split()]
    fitting = [text for text in texts if least <= len(text.split()) <= most]
    texts = fitting if len(fitting) >= 2 else sorted(texts, key=len)
    count = min(PAIRS, len(texts) // 2)
    if count < 1:
        raise UserError(f"{source}: interpolation needs at least two sentences")
    rows = np.random.default_rng(seed).permutation(len(texts))[: 2 * count]
    chosen = [" ".join(texts[row].split()) for row in rows]
    return chosen[:count], chosen[count:]


def _between(vae: TextVAE, first: list[str], second: list[str]) -> list[list[str]]:
    """Greedy sentences at (1 − α) μ₁ + α μ₂, a list an α."""
    start, end = vae.encode(first), vae.encode(second)  # (P, D)
    longest = 2 * LENGTHS[1]
    return [vae.decode((1 - a) * start + a * end, max_length=longest) for a in SHARES]


def _unknown(vae: TextVAE, written: list[list[str]]) -> tuple[float, float]:
    """Share of words that are the unknown word, and its standard error over pairs."""
    from uncollapse.data.tokenizer import UNK

    token = vae.tokenizer.tokens[UNK]
    words = [[text.split() for text in way] for way in zip(*written, strict=True)]  # P of A
    hits = np.array([sum(text.count(token) for text in way) for way in words], np.float64)
    counts = np.array([sum(map(len, way)) for way in words], np.float64)
    share = float(hits.sum() / max(counts.sum(), 1))
    # of a ratio of means
    rest = hits - share * counts
    error = float(rest.std(ddof=1)) / max(counts.mean(), 1) / len(hits) ** 0.5
    return round(share, 6), round(error, 6) if len(hits) > 1 else 0.0


def _judge(published: Published, unknown: dict[str, tuple[float, float]]) -> list[Judgement]:
    """``settings.better`` and ``settings.worse`` are the two rows."""
    better, worse = published.settings["better"], published.settings["worse"]
    text = statement(published, "unknown")
    missing = [label for label in (better, worse) if label not in unknown]
    if missing:
        counted = lacking(text, missing)
    else:
        (own, own_error), (other, other_error) = unknown[better], unknown[worse]
        noise = NOISE * float(np.hypot(own_error, other_error))
        holds = None if abs(other - own) <= noise else own < other
        seen = f"unknown words: {better} {own:.1%} ± {own_error:.1%}, {worse} {other:.1%}"
        counted = judged(text, holds, f"{seen} ± {other_error:.1%}")
    reason = "for readers to judge: the sentences are above"
    consistent = statement(published, "consistent")
    return [counted, Judgement(consistent, "", "cannot be compared", "", reason)]


def _markdown(values: dict[str, Any]) -> str:
    if not values["rows"]:
        return ""
    first, second = values["sentences"]
    lines = [
        [f"{share:g}", *(own[place] or "(nothing)" for own in values["rows"].values())]
        for place, share in enumerate(values["shares"])
    ]
    counted = [[label, f"{u:.2%} ± {e:.2%}"] for label, (u, e) in values["unknown"].items()]
    return "\n".join(
        [
            f"First: *{_plain(first)}*\n\nSecond: *{_plain(second)}*\n",
            table(["α", *values["rows"]], [[_plain(cell) for cell in line] for line in lines]),
            table(["system", "unknown words"], counted),
            f"{values['about']}.\n",
        ]
    )


def _plain(text: str) -> str:
    """Words that Markdown would take for markup, such as ``<unk>``."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
