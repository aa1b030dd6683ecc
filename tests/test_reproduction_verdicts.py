"""Claims judged, and orderings counted, from records made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from reproduction_support import cost, metric, record, table

from uncollapse.reproduction.published import Published
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.verdicts import (
    Figure,
    Judgement,
    Orderings,
    cell_figure,
    doubt,
    figure_of,
    judge,
    judgements,
    orderings,
    show_number,
    time_to_best,
)

ROWS = [{"label": label, "recipe": recipe} for label, recipe in (("A", "vae"), ("B", "bn-vae"))]


def seeds(*values: float | None, column: str = "nll", error: float | None = None) -> list[Record]:
    """A system's runs, a seed each."""
    return [
        record(seed=seed, metrics={column: metric(value, error)})
        for seed, value in enumerate(values)
    ]


def claimed(relation: str = "<", **changed: Any) -> Published:
    """A table with one claim: A against B."""
    claim = {
        "text": "A against B",
        "left": {"row": "A", "column": "nll"},
        "relation": relation,
        "right": {"row": "B", "column": "nll"},
        **changed,
    }
    return table(rows=ROWS, claims=[claim])


def judged(
    published: Published, a: list[Record], b: list[Record], preset: str = "small"
) -> Judgement:
    """Its claim on PTB."""
    runs = {("A", "ptb"): a, ("B", "ptb"): b}
    return judge(published, published.claims[0], "ptb", preset, runs)


# --- claims -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "relation", "b", "verdict"),
    [
        (100.0, "<", 101.0, "reproduced"),
        (101.0, "<", 100.0, "not reproduced"),
        (101.0, ">", 100.0, "reproduced"),
        (100.0, ">", 101.0, "not reproduced"),
        (100.0, "<", 100.0, "undecided"),
        (100.0, ">", 100.0, "undecided"),
    ],
)
def test_one_seed_and_no_error_decides_by_the_values(
    a: float, relation: str, b: float, verdict: str
) -> None:
    found = judged(claimed(relation), seeds(a), seeds(b))
    assert found.verdict == verdict
    assert found.corpus == "PTB"
    assert found.evidence == f"NLL: A {a:g} {relation} B {b:g}; one seed"


@pytest.mark.parametrize(("b", "verdict"), [(100.4, "reproduced"), (100.6, "not reproduced")])
def test_about_as_good_is_within_what_the_claim_says(b: float, verdict: str) -> None:
    found = judged(claimed("~", within=0.5), seeds(100.0), seeds(b))
    assert found.verdict == verdict
    assert found.evidence == f"NLL: A 100 ~ B {b:g} within 0.5; one seed"


def test_the_error_over_seeds() -> None:
    # 1, 2, 3: mean 2, deviation 1, error 1/√3
    found = figure_of(seeds(1.0, 2.0, 3.0, error=0.25), "nll")
    assert found == Figure(2.0, pytest.approx(1 / math.sqrt(3)), 3, 0.25)
    assert figure_of(seeds(1.0, None, 3.0), "nll") == Figure(2.0, pytest.approx(1.0), 2, None)
    assert figure_of(seeds(None), "nll") is None
    assert figure_of([], "nll") is None
    assert figure_of(seeds(0.5), "nll", scale=100.0) == Figure(50.0, None, 1, None)


@pytest.mark.parametrize(("gap", "verdict"), [(1.6, "undecided"), (1.7, "reproduced")])
def test_a_difference_counts_beyond_two_standard_errors(gap: float, verdict: str) -> None:
    # errors 1/√3 each: together √(2/3) = 0.816, twice that is 1.633
    a, b = seeds(1.0, 2.0, 3.0), seeds(1.0 + gap, 2.0 + gap, 3.0 + gap)
    found = judged(claimed("<"), a, b)
    assert found.verdict == verdict
    assert "one seed" not in found.evidence
    assert "± 0.58" in found.evidence


def test_the_spread_of_the_others_stands_in_where_there_is_one_seed() -> None:
    # deviation 1 of A: B's error is 1/√1, A's 1/√3; together √(4/3) = 1.155, twice 2.309
    a = seeds(1.0, 2.0, 3.0)
    assert judged(claimed("<"), a, seeds(4.2)).verdict == "undecided"
    assert judged(claimed("<"), a, seeds(4.4)).verdict == "reproduced"
    assert "one seed" in judged(claimed("<"), a, seeds(4.4)).evidence


def test_the_spread_is_pooled_over_the_systems_that_have_several_seeds() -> None:
    # 0, 2 has variance 2 with 1 degree of freedom, 1, 2, 3 variance 1 with 2: √(4/3) = 1.155.
    # A's own error is 1, B's 0.577 and pooled 0.667: together 1.202, twice 2.404
    for gap, verdict in ((2.3, "undecided"), (2.5, "reproduced")):
        b = seeds(*(gap + deviation for deviation in (0, 1, 2)))
        assert judged(claimed("<"), seeds(0.0, 2.0), b).verdict == verdict
    assert doubt(Figure(1.0, None, 0), 9.0) == 0.0  # a plain number


def test_the_error_over_sentences_stands_in_where_nobody_has_several_seeds() -> None:
    a, b = seeds(100.0, error=3.0), seeds(109.0, error=4.0)  # together 5, twice 10
    found = judged(claimed("<"), a, b)
    assert found.verdict == "undecided"
    assert "one seed, errors over sentences" in found.evidence
    assert judged(claimed("<"), a, seeds(111.0, error=4.0)).verdict == "reproduced"


def test_nothing_is_known_of_a_missing_figure() -> None:
    found = judged(claimed(), seeds(100.0), [])
    assert (found.verdict, found.evidence) == ("not run", "")
    assert found.reason == "no run of B yet"
    found = judged(claimed(), seeds(None), seeds(1.0))
    assert (found.verdict, found.reason) == ("cannot be compared", "no nll of A here")


def test_a_cell_can_be_multiplied_and_shifted() -> None:
    half = claimed("<", left={"row": "A", "column": "nll", "times": 0.5, "plus": 1.0})
    assert judged(half, seeds(10.0), seeds(6.1)).verdict == "reproduced"  # 6 < 6.1
    assert judged(half, seeds(10.0), seeds(5.9)).verdict == "not reproduced"
    assert "0.5 × A +1 6" in judged(half, seeds(10.0), seeds(6.1)).evidence
    # its error is halved too: 1/√3 / 2 and 1/√3 are 0.645, twice 1.291
    a = seeds(1.0, 2.0, 3.0)
    for gap, verdict in ((1.2, "undecided"), (1.4, "reproduced")):
        assert judged(half, a, seeds(*(1.0 + gap + d for d in (0, 1, 2)))).verdict == verdict
    negative = claimed(">", left={"row": "A", "column": "nll", "times": -1.0}, right={"plus": -3.0})
    assert judged(negative, a, []).verdict == "undecided"  # −2 ± 0.58 and −3: 1 < 1.155
    constant = claimed(">", right={"plus": 7.0})
    assert judged(constant, seeds(8.0), []).verdict == "reproduced"
    assert judged(constant, seeds(8.0), []).evidence == "NLL: A 8 > 7; one seed"


def test_columns_have_the_unit_of_the_table_and_rows_their_own_figures() -> None:
    published = table(
        columns={"accuracy": {"label": "%", "scale": 100.0}, "nll": {"label": "NLL"}},
        rows=[
            {"label": "A", "recipe": "vae", "figures": {"nll": "nll_twr"}},
            {"label": "B", "recipe": "bn-vae"},
        ],
    )
    own = [record(metrics={"accuracy": metric(0.5, 0.1), "nll": metric(9.0), "nll_twr": metric(7)})]
    runs = {("A", "ptb"): own, ("B", "ptb"): own}
    a, b = published.rows
    assert cell_figure(published, a, "ptb", "accuracy", runs) == Figure(50.0, None, 1, 10.0)
    assert cell_figure(published, a, "ptb", "nll", runs) == Figure(7.0, None, 1, None)
    assert cell_figure(published, b, "ptb", "nll", runs) == Figure(9.0, None, 1, None)
    assert cell_figure(published, b, "yahoo", "nll", runs) is None
    found = cell_figure(published, b, "ptb", "parameters", runs)
    assert found is not None
    assert found.value == 1000


def test_the_explanation_of_the_corpus_comes_before_that_of_the_preset() -> None:
    why = {"small": "too little data", "small/ptb": "short sentences", "paper": "a slip"}
    false = claimed(">", explanation=why)
    assert judged(false, seeds(1.0), seeds(2.0)).reason == "short sentences"
    assert judged(false, seeds(1.0), seeds(2.0), "paper").reason == "a slip"
    assert judged(false, seeds(2.0), seeds(2.0)).reason == "short sentences"  # undecided
    assert judged(false, seeds(3.0), seeds(2.0)).reason == ""
    del why["small/ptb"]
    assert judged(claimed(">", explanation=why), seeds(1.0), seeds(2.0)).reason == "too little data"
    assert judged(claimed(">"), seeds(1.0), seeds(2.0)).reason == ""


def test_every_claim_is_judged_on_each_of_its_corpora_that_is_here() -> None:
    claim = claimed().claims[0].model_dump()
    published = table(rows=ROWS, claims=[claim, {**claim, "on": ["yahoo"]}])
    assert len(judgements(published, "small", ["ptb", "yahoo"], {})) == 3
    assert [j.corpus for j in judgements(published, "small", ["yahoo"], {})] == ["Yahoo"] * 2
    assert judgements(published, "small", [], {}) == []


# --- times --------------------------------------------------------------------------------------


def test_the_ratio_of_times_to_the_plain_vae() -> None:
    def timed(*until: float) -> list[Record]:
        return [record(seed=s, cost=cost(100.0, t)) for s, t in enumerate(until)]

    published = table(rows=ROWS, columns={"ratio_to_vae": {"label": "×", "cost": True}})
    runs = {("A", "ptb"): timed(10.0, 30.0), ("B", "ptb"): timed(40.0, 60.0)}
    a, b = published.rows
    own = cell_figure(published, a, "ptb", "ratio_to_vae", runs)
    assert own == Figure(1.0, pytest.approx(0.5), 2, 0.1)  # 0.5 and 1.5
    other = cell_figure(published, b, "ptb", "ratio_to_vae", runs)
    assert other == Figure(2.5, pytest.approx(0.5), 2, 0.25)  # 2 and 3
    assert cell_figure(published, b, "ptb", "ratio_to_vae", {("B", "ptb"): timed(1.0)}) is None


def test_time_is_that_of_the_processor_where_it_is_known() -> None:
    assert time_to_best(record(cost=cost(100.0, 50.0))) == 50.0
    assert time_to_best(record(cost=cost(100.0, 50.0, busy=60.0))) == 30.0
    on_gpu = record(cost=cost(100.0, 50.0, busy=60.0), environment={"hardware": "NVIDIA H200"})
    assert time_to_best(on_gpu) == 50.0
    assert time_to_best(record(cost=cost(100.0, None))) is None
    assert time_to_best(record(cost=cost(0.0, 0.0))) is None


# --- orderings ----------------------------------------------------------------------------------


def test_orderings_counted_by_hand() -> None:
    printed = {"A": 1.0, "B": 2.0, "C": 2.0, "D": 3.0, "E": None, "F": 9.0, "G": 4.0}
    rows = [
        {"label": label, "recipe": "vae", "values": {"ptb": [value, None]}}
        for label, value in printed.items()
    ]
    rows[5]["estimators"] = {"nll": "another estimator"}  # F is left out
    published = table(rows=rows)
    ours = {"A": 10.0, "B": 30.0, "C": 20.0, "D": 20.0, "E": 5.0, "F": 1.0}  # and no G
    runs = {(label, "ptb"): seeds(value) for label, value in ours.items()}
    # A-B, A-C, A-D alike; B-C printed alike; B-D opposed; C-D the same here
    assert orderings(published, "ptb", "nll", runs) == Orderings(alike=3, opposed=1, undecided=1)
    assert orderings(published, "ptb", "kl", runs) == Orderings(0, 0, 0)
    assert orderings(published, "yahoo", "nll", runs) == Orderings(0, 0, 0)


def test_orderings_within_two_standard_errors_are_undecided() -> None:
    rows = [
        {"label": label, "recipe": "vae", "values": {"ptb": [value, None]}}
        for label, value in (("A", 1.0), ("B", 2.0))
    ]
    published = table(rows=rows)
    for gap, expected in ((1.6, Orderings(0, 0, 1)), (1.7, Orderings(1, 0, 0))):
        runs = {("A", "ptb"): seeds(1.0, 2.0, 3.0)}
        runs["B", "ptb"] = seeds(*(1.0 + gap + d for d in (0, 1, 2)))
        assert orderings(published, "ptb", "nll", runs) == expected


def test_numbers_for_people() -> None:
    shown = [show_number(value) for value in (None, 3.14159, 1234.5, -0.001, -1234.5)]
    assert shown == ["–", "3.14", "1,234", "0.00", "-1,234"]
