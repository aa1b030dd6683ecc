"""The papers' figures: all of them, those in closed form, and those from records."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from figure_support import Made, absent, redrawn, texts_of, verdicts

from uncollapse.errors import UserError
from uncollapse.reproduction.figures import FIGURES
from uncollapse.reproduction.figures.drawn import beyond, every, exceeds, short
from uncollapse.reproduction.published import load_published, published_names

# --- all of them ------------------------------------------------------------------------------


def test_every_figure_of_the_papers_has_its_code_and_its_statements() -> None:
    wanted = {name for name in published_names() if load_published(name).kind != "table"}
    assert set(FIGURES) == wanted
    for name, code in FIGURES.items():
        published = load_published(name)
        assert set(published.settings["statements"]) == set(code.STATEMENTS), name
    with pytest.raises(KeyError):
        FIGURES["dem-figure9"]


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "dem-figure3"])
def test_without_runs_nothing_is_compared(name: str) -> None:
    published = load_published(name)
    drawn = FIGURES[name].compute(published, Made(absent))
    assert set(verdicts(drawn)) == {"cannot be compared"}
    assert [judgement.text for judgement in drawn.judgements] == [
        published.settings["statements"][key]
        for corpus in (published.corpora if name == "pool-figure3" else [""])
        for key in FIGURES[name].STATEMENTS
        if corpus is not None
    ]
    figure = FIGURES[name].draw(published, json.loads(json.dumps(drawn.values)))
    if figure is not None:  # empty, but a picture
        texts_of(figure)


def test_a_statement_that_is_not_there_is_named() -> None:
    published = load_published("bn-figure3")
    bare = published.model_copy(update={"settings": {"baseline": "VAE", "statements": {}}})
    with pytest.raises(UserError, match=r"bn-figure3: settings.statements has no 'rises_empty'"):
        FIGURES["bn-figure3"].compute(bare, Made(absent))


def test_judging() -> None:
    assert exceeds([2, 3], [1, 2]) is True
    assert exceeds([2, 3], [1, 4]) is None
    assert exceeds([2, 3], 5.0) is False
    assert exceeds([], 5.0) is None
    assert [beyond(value, 1, 2) for value in (1.0, 1.5, 2.0)] == [False, None, True]
    assert every([True, None, False]) is False
    assert every([True, None]) is None
    assert every([]) is None
    assert short(np.array([[1.23456, np.nan], [1e-7, 2]])) == [[1.235, None], [1e-7, 2.0]]


# --- closed form ------------------------------------------------------------------------------


def test_dispersion_of_two_components() -> None:
    published = load_published("dem-figure3")
    drawn = FIGURES["dem-figure3"].compute(published, Made(absent))
    assert verdicts(drawn) == ["reproduced"] * 3
    gaussian, bernoulli = drawn.values["panels"]
    x, y = np.array(gaussian["x"]), np.array(gaussian["y"])
    # of unit variances and equal weights: (μ₁ − μ₂)² / 8
    wanted = (x[None] - y[:, None]) ** 2 / 8
    np.testing.assert_allclose(gaussian["dispersion"], wanted, rtol=2e-3, atol=1e-12)
    p, q = bernoulli["x"][3], bernoulli["y"][30]
    exact = -math.log(math.sqrt(p * q) + math.sqrt((1 - p) * (1 - q)))
    assert bernoulli["dispersion"][30][3] == pytest.approx(exact, rel=2e-3)
    text = texts_of(redrawn("dem-figure3", published, drawn))
    assert "no data" in text
    assert "L_d (nats)" in text


# --- from records -----------------------------------------------------------------------------

# Shi et al. 2020, Table 1: nats and reverse perplexity, one that is better in both made up
TABLE = {
    "VAE": (101.0, 730.8), "DVAE": (120.0, 744.1), "DI-VAE": (118.0, 310.3),
    "semi-VAE": (100.7, 494.5), "GM-VAE": (99.4, 983.5), "DGM-VAE (0.8)": (104.3, 257.7),
    "DGM-VAE + Lmi": (105.7, 247.4),
}  # fmt: skip


def test_likelihood_against_reverse_perplexity() -> None:
    published = load_published("dem-figure5")

    def measure(row: str, _corpus: str, seed: int) -> Any:
        if row not in TABLE or (row == "DVAE" and seed):
            return None
        nll, ppl = TABLE[row]
        figures = {"nll": nll + seed, "reverse_ppl": ppl + 4 * seed}
        return ({"nll": nll} if row == "VAE" else figures), []

    runs = Made(measure, seeds=(0, 1))
    drawn = FIGURES["dem-figure5"].compute(published, runs)
    assert verdicts(drawn) == ["reproduced", "reproduced"]
    points = {point["label"]: point for point in drawn.values["points"]}
    assert points["semi-VAE"] == {
        "label": "semi-VAE", "seeds": 2, "ll": -101.2, "ll_error": 0.5, "rppl": 496.5,
        "rppl_error": 2.0,
    }  # fmt: skip
    assert points["DVAE"]["ll_error"] == 1.0  # of one run, that over its sentences
    assert "VAE" in drawn.values["without"]
    assert "VAE" not in points
    figure = redrawn("dem-figure5", published, drawn)
    text = texts_of(figure)
    assert all(label in text for label in points)
    assert all(f in text for f in ("ptb-cut", "preset small", "seeds 0, 1", "nats per sentence"))
    assert figure.axes[0].get_xscale() == "log"

    with_better = {**TABLE, "DI-VAE": (90.0, 100.0)}
    ahead = Made(
        lambda row, _c, _s: (
            (dict(zip(("nll", "reverse_ppl"), with_better[row], strict=True)), [])
            if row in with_better
            else None
        )
    )
    better = FIGURES["dem-figure5"].compute(published, ahead)
    assert verdicts(better) == ["not reproduced", "not reproduced"]
    assert "DI-VAE than DGM-VAE (0.8)" in better.judgements[0].evidence


def falling(row: str) -> list[dict[str, float]]:
    """The history of a VAE that collapses, or of another system that does not."""
    kl = [1.2, 2.0, 0.8, 0.1] if row in ("VAE", "SeqVAE") else [2.0, 3.0, 4.0, 5.0]
    mi = [0.2, 0.3, 0.1, 0.0] if row in ("VAE", "SeqVAE") else [1.8, 2.6, 3.5, 4.2]
    cosine = 0.9 if row == "SeqVAE" else 0.4
    return [
        {"kl": k, "mi": m, "cosine": cosine + 0.01 * n}
        for n, (k, m) in enumerate(zip(kl, mi, strict=True))
    ]


def test_information_through_training() -> None:
    published = load_published("bn-figure3")
    runs = Made(lambda row, _c, _s: ({}, falling(row)), seeds=(0, 1, 2))
    drawn = FIGURES["bn-figure3"].compute(published, runs)
    assert verdicts(drawn) == ["reproduced"] * 3
    course = drawn.values["rows"]["VAE"][2]
    assert course == {
        "seed": 2, "epoch": [1, 2, 3, 4], "kl": [1.2, 2.0, 0.8, 0.1], "mi": [0.2, 0.3, 0.1, 0.0],
        "aggregate": [1.0, 1.7, 0.7, 0.1],
    }  # fmt: skip
    figure = redrawn("bn-figure3", published, drawn)
    assert [axes.get_title("left") for axes in figure.axes] == ["VAE", "Agg-VAE", "BN-VAE"]
    assert all(len(axes.lines) == 9 for axes in figure.axes)  # three figures, three seeds
    assert len({axes.get_ylim() for axes in figure.axes}) == 1

    alive = Made(lambda _row, _c, _s: ({}, falling("BN-VAE")))
    assert verdicts(FIGURES["bn-figure3"].compute(published, alive))[:2] == ["not reproduced"] * 2


def test_cosines_through_training() -> None:
    published = load_published("pool-figure3")

    def measure(row: str, corpus: str, _seed: int) -> Any:
        return None if corpus == "yelp15" else ({}, falling(row))

    drawn = FIGURES["pool-figure3"].compute(published, Made(measure, seeds=(0, 1)))
    assert [(j.corpus, j.verdict) for j in drawn.judgements] == [("Yahoo", "reproduced")] * 3
    figure = redrawn("pool-figure3", published, drawn)
    cosine, kl = figure.axes
    assert cosine.get_ylabel() == "mean pairwise cosine"
    assert kl.get_ylabel() == "KL (nats per sentence)"
    drawn_lines = [list(np.asarray(line.get_ydata())) for line in cosine.lines]
    assert drawn_lines[0] == [0.9, 0.91, 0.92, 0.93]
    # a history from before cosines were kept draws nothing
    old = Made(lambda _row, _c, _s: ({}, [{"kl": 1.0, "mi": 1.0}]))
    empty = FIGURES["pool-figure3"].compute(published, old)
    assert empty.values["panels"] == {}
