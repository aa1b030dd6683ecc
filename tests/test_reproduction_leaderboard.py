"""Systems ranked by what one wants of them, from entries made by hand and from two real runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from reproduction_support import cost, record, shrink

from uncollapse.errors import UserError
from uncollapse.recipes import recipe_names
from uncollapse.reproduction.all_systems import leaderboard
from uncollapse.reproduction.leaderboard import to_csv, to_markdown
from uncollapse.reproduction.purposes import PURPOSES, Purpose, figures_for, rows_for
from uncollapse.reproduction.ranking import Entry, entries_of, rank
from uncollapse.reproduction.records import read_sealed
from uncollapse.reproduction.verdicts import Figure

LIKELIHOOD = Purpose("likely", "nll", "lower", "sentences", "")
ALIVE = Purpose("alive", "mi", "higher", "sentences", "", within=0.02)


def entry(system: str, edition: str = "ptb", **figures: float | tuple[float, float]) -> Entry:
    """A system on a corpus; a pair is a value and its error over seeds."""
    found = {
        name: Figure(value, None, 1) if isinstance(value, float) else Figure(*value, seeds=3)
        for name, value in figures.items()
    }
    return Entry(system, edition, 1, found, 1.0, 1000, 300)


def ranks(purpose: Purpose, *entries: Entry) -> dict[str, float]:
    """Rank by system, best first."""
    return {one.system: pytest.approx(one.rank) for one in rank(purpose, entries)}


# --- ranks --------------------------------------------------------------------------------------


def test_a_rank_is_the_share_of_systems_up_to_it() -> None:
    nll = [entry("a", nll=1.0), entry("b", nll=3.0), entry("c", nll=2.0), entry("d", nll=4.0)]
    found = ranks(LIKELIHOOD, *nll)
    assert found == {"a": 1 / 4, "c": 2 / 4, "b": 3 / 4, "d": 4 / 4}
    assert list(found) == ["a", "c", "b", "d"]
    higher = Purpose("", "nll", "higher", "sentences", "")
    assert list(ranks(higher, *nll)) == ["d", "b", "c", "a"]


def test_systems_within_two_standard_errors_share_their_places() -> None:
    # a and b: 1 apart, errors 0.3 and 0.4 together 0.5, twice that is 1; c is 1.1 behind b
    a, b = entry("a", nll=(1.0, 0.3)), entry("b", nll=(2.0, 0.4))
    c = entry("c", nll=(3.1, 0.3))
    assert ranks(LIKELIHOOD, a, b, c) == {"a": 1.5 / 3, "b": 1.5 / 3, "c": 3 / 3}
    # sharing is not passed on: b may share with both while a is before c
    near = entry("c", nll=(2.9, 0.3))
    assert ranks(LIKELIHOOD, a, b, near) == {"a": 1.5 / 3, "b": 2 / 3, "c": 2.5 / 3}
    same = [entry(name, nll=1.0) for name in "ab"]
    assert ranks(LIKELIHOOD, *same) == {"a": 1.5 / 2, "b": 1.5 / 2}


def test_ranks_are_the_mean_over_corpora() -> None:
    here = [entry("a", nll=1.0), entry("b", nll=2.0)]
    there = [
        entry("a", "yahoo", nll=9.0),
        entry("b", "yahoo", nll=8.0),
        entry("c", "yahoo", nll=7.0),
    ]
    # c is on one of two corpora, which is no more than half of them
    assert ranks(LIKELIHOOD, *here, *there) == {"a": 0.75, "b": (1 + 2 / 3) / 2}
    (first, *_) = rank(LIKELIHOOD, [*here, *there])
    assert (first.system, first.corpora, first.values) == ("a", 2, {"ptb": 1.0, "yahoo": 9.0})


def test_a_system_on_fewer_than_half_of_the_corpora_has_no_rank() -> None:
    entries = [entry(s, e, nll=1.0) for s in "ab" for e in ("ptb", "yahoo", "smd")]
    seldom = entry("c", "ptb", nll=0.5)
    assert set(ranks(LIKELIHOOD, *entries, seldom)) == {"a", "b"}
    assert set(ranks(LIKELIHOOD, *entries, seldom, entry("c", "smd", nll=0.5))) == {"a", "b", "c"}


def test_a_corpus_of_a_few_systems_does_not_count() -> None:
    most = [
        entry(system, nll=float(value)) for system, value in zip("abcde", range(5), strict=True)
    ]
    few = [entry("e", "smd", nll=1.0), entry("d", "smd", nll=2.0)]  # 2 of 5: fewer than half
    assert ranks(LIKELIHOOD, *most, *few) == ranks(LIKELIHOOD, *most)
    third = entry("a", "smd", nll=3.0)  # 3 of 5
    assert ranks(LIKELIHOOD, *most, *few, third)["e"] == (5 / 5 + 1 / 3) / 2


def test_a_corpus_with_one_system_ranks_nobody() -> None:
    assert ranks(LIKELIHOOD, entry("a", nll=1.0)) == {}
    assert ranks(ALIVE, entry("a", nll=1.0), entry("b", nll=2.0)) == {}
    assert ranks(LIKELIHOOD) == {}


def test_systems_that_learn_from_labels_are_not_ranked_by_them() -> None:
    taught, untaught = (entry(name, cluster_ami=0.3) for name in ("dcm-vae", "gm-vae"))
    another = entry("di-vae", cluster_ami=0.1)
    clusters = next(one for one in PURPOSES if one.figure == "cluster_ami")
    assert list(ranks(clusters, taught, untaught, another)) == ["gm-vae", "di-vae"]
    assert not any("dcm-vae" in ranks(one, taught, another) for one in PURPOSES if one.unlabelled)


def test_dialogues_are_ranked_by_themselves() -> None:
    talks = [entry(name, "smd:dialogues", nll=1.0) for name in "ab"]
    assert ranks(LIKELIHOOD, *talks) == {}
    of = Purpose("", "nll", "lower", "dialogues", "")
    assert set(ranks(of, *talks, entry("c", nll=0.0), entry("d", nll=0.0))) == {"a", "b"}


def test_a_latent_may_cost_little_of_the_best_likelihood() -> None:
    entries = [
        entry("best", nll=100.0, mi=1.0),
        entry("just", nll=102.0, mi=5.0),
        entry("worse", nll=102.1, mi=9.0),
        entry("unknown", mi=9.0),
    ]
    assert list(ranks(ALIVE, *entries)) == ["just", "best"]
    # the best model of a corpus may be one without a latent
    without = entry("lm", nll=99.0)
    assert ranks(ALIVE, *entries, without) == {}  # best alone is within 2 % of 99
    # of each corpus its own best
    other = [entry("worse", "smd", nll=50.0, mi=2.0), entry("just", "smd", nll=50.5, mi=1.0)]
    # who costs too much on half of the corpora is not ranked
    assert set(ranks(ALIVE, *entries, *other)) == {"just"}


# --- entries ------------------------------------------------------------------------------------


def test_seeds_are_one_entry_and_variants_of_tables_none() -> None:
    found = entries_of(
        [
            record("bn-vae", 0, {"nll": 1.0, "mi": None}, cost=cost(100.0, 60.0)),
            record("bn-vae", 1, {"nll": 3.0, "mi": None}, cost=cost(100.0, 80.0)),
            record("vae", 0, {"nll": 4.0}, cost=cost(100.0, 35.0)),
            record("bn-vae,scale=0.6", 0, {"nll": 0.5}),
            record("vae,trained_on=yahoo", 0, {"nll": 0.5}),
            record("bn-vae", 0, {"nll": 5.0}, edition="smd"),
        ]
    )
    assert [(e.edition, e.system, e.seeds) for e in found] == [
        ("ptb", "bn-vae", 2), ("ptb", "vae", 1), ("smd", "bn-vae", 1)
    ]  # fmt: skip
    bn, vae, other = found
    assert bn.figures == {"nll": Figure(2.0, pytest.approx(1.0), 2)}
    assert (bn.time_ratio, vae.time_ratio, other.time_ratio) == (2.0, 1.0, None)
    assert (bn.parameters, bn.peak_memory_mb) == (1000, 300)


def test_times_in_dialogue_are_over_those_of_the_cvae() -> None:
    where = "smd:dialogues"
    runs = [record("cvae", edition=where, cost=cost(9.0, 3.0)), record("hred", edition=where)]
    assert [(e.system, e.time_ratio) for e in entries_of(runs)] == [
        ("cvae", 1.0), ("hred", pytest.approx(50 / 3))
    ]  # fmt: skip


def test_a_system_is_trained_where_its_labels_are() -> None:
    without, labelled, talking = (
        {row.recipe for row in rows_for(*where)}
        for where in ((False, ("label",)), (False, ("emotion", "act")), (True, ("act",)))
    )
    supervised = labelled - without
    assert supervised == {"cm-vae", "dcm-vae", "supervised-dvae"}
    assert without < labelled
    assert not talking & labelled
    assert talking | labelled == set(recipe_names())


def test_every_figure_that_a_purpose_asks_for_is_measured() -> None:
    for reads, dialogues in (("sentences", False), ("dialogues", True)):
        asked = {purpose.figure for purpose in PURPOSES if purpose.reads == reads}
        measured = {*figures_for(dialogues, labelled=True), "nll", "mi", "bleu"}
        assert asked <= measured
    assert "accuracy_100" not in figures_for(False, labelled=False)


# --- the page -----------------------------------------------------------------------------------


def test_the_page_and_the_list_have_every_system() -> None:
    runs = [
        record(system, 0, {"nll": 100.0 + place, "mi": 1.0, "bleu": None}, edition=edition)
        for edition in ("ptb", "yahoo-resplit", "smd:dialogues")
        for place, system in enumerate(("lstm-lm", "vae", "bn-vae", "cvae", "beta-vae", "ivae"))
    ]  # fmt: skip
    page = to_markdown(runs)
    for edition in ("ptb", "yahoo-resplit", "smd:dialogues"):
        rows = page.partition(f"## {edition}\n")[2].partition("\n## ")[0].splitlines()
        rows = [line for line in rows if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [  # by likelihood
            r.system for r in runs if r.edition == edition
        ]
        assert len({row.count("|") for row in rows}) == 1
    assert "## The best model of the text" in page
    assert "## Clusters that mean something" not in page  # nobody has the figure
    lines = list(csv.DictReader(io.StringIO(to_csv(runs))))
    assert {(line["edition"], line["system"]) for line in lines} == {
        (r.edition, r.system) for r in runs
    }
    nll = [line for line in lines if line["figure"] == "nll"]
    assert [float(line["value"]) for line in nll if line["system"] == "vae"] == [101.0] * 3


@pytest.mark.slow
def test_two_systems_on_the_grammar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, sentences=120)
    said: list[str] = []
    out = tmp_path / "out"
    board = leaderboard(
        out, on=["grammar", "ptb"], systems=["lstm-lm", "vae"], corpora=tmp_path, jobs=2,
        device="cpu", say=said.append,
    )  # fmt: skip
    assert [(e.edition, e.system) for e in entries_of(board.records)] == [
        ("grammar", "lstm-lm"), ("grammar", "vae")
    ]  # fmt: skip
    assert board.failures == []
    assert "ptb is left out: ptb is not in" in said[0]
    language_model, vae = board.records
    assert language_model.value("accuracy_100") is None  # it has no latent
    assert vae.value("accuracy_100") is not None
    assert vae.value("reverse_ppl") is not None
    page = (out / "leaderboard-small.md").read_text()
    assert page == board.to_markdown() + "\n"
    assert "- ptb: ptb is not in" in page
    values = read_sealed(out / "leaderboard-small.json")
    assert [e["system"] for e in values["entries"]] == ["lstm-lm", "vae"]
    assert (out / "leaderboard-small.csv").read_text() == to_csv(board.records)
    # nothing is done twice
    said.clear()
    leaderboard(out, on=["grammar"], systems=["lstm-lm", "vae"], device="cpu", say=said.append)
    assert said == ["2 of 2 runs were finished before"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"on": ["gramar"]}, "unknown corpus 'gramar'; did you mean 'grammar'"),
        ({"systems": ["vea"]}, "unknown recipe 'vea'; did you mean 'vae'"),
        ({"systems": ["cvae"], "on": ["grammar"]}, "none of these systems can be trained"),
        ({"on": ["ptb"]}, "where the corpora are is not known"),
        ({"on": ["grammar"], "preset": "smal"}, "unknown preset 'smal'; did you mean 'small'"),
        ({"on": ["grammar"], "jobs": 0}, "the number of jobs must be at least 1, not 0"),
        ({"on": ["grammar"], "seeds": -1}, "the number of seeds must be at least 1, not -1"),
        ({"on": ["grammar"], "device": "gpu"}, "unknown device 'gpu'"),
        ({"on": ["grammar"], "cluster_options": {"a": 1}}, "options of a cluster need --cluster"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], said: str
) -> None:
    monkeypatch.delenv("UNCOLLAPSE_CORPORA", raising=False)
    with pytest.raises(UserError, match=said):
        leaderboard(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
