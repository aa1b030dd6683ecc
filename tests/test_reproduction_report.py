"""Paper beside ours: what is compared and what is not, the same in all three forms."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from reproduction_support import TABLE, metric, record, table, use_table, write_corpora

from uncollapse.errors import RunError, UserError
from uncollapse.reproduction import reproduce
from uncollapse.reproduction.page import show, show_figure
from uncollapse.reproduction.published import Published, parse_published
from uncollapse.reproduction.records import Record, read_sealed
from uncollapse.reproduction.report import CorpusUsed, Report, check_untouched, half_a_digit
from uncollapse.reproduction.tasks import runs_of
from uncollapse.reproduction.verdicts import Figure

PTB = CorpusUsed("ptb", "PTB", "ptb", "all of the corpus", True, "")
RESPLIT = CorpusUsed("yahoo", "Yahoo", "yahoo-resplit", "all", False, "it is a re-split")
ROWS: list[dict[str, Any]] = [
    {
        "label": "VAE",
        "recipe": "vae",
        "values": {"ptb": [101.4, 0.0], "yahoo": [328.6, 0.0]},
        "estimators": {"kl": "of another prior"},
    },
    {"label": "LM", "recipe": "lstm-lm", "values": {"ptb": [100.0, None]}},
    {"label": "BN", "recipe": "bn-vae", "values": {"yahoo": [326.7, 6.2]}},
]
CLAIMS = [
    {"text": text, "left": {"row": "VAE", "column": "nll"}, "relation": "<", "right": {"plus": 200}}
    for text in ("The first claim", "The second claim")
]


def published(**changed: Any) -> Published:
    """Three systems on two corpora."""
    return table(**{"rows": ROWS, "claims": CLAIMS, **changed})


def run(nll: float, error: float | None = None, **changed: Any) -> Record:
    """What was measured of a system."""
    return record(metrics={"nll": metric(nll, error), "kl": metric(0.0)}, **changed)


def report(preset: str = "paper", **changed: Any) -> Report:
    """What became of the table."""
    runs = {
        ("VAE", "ptb"): [run(101.3, 0.05)],
        ("VAE", "yahoo"): [run(328.6)],
        ("LM", "ptb"): [record("lstm-lm", figures={"nll": 99.0})],
    }
    values: dict[str, Any] = {
        "published": published(), "preset": preset, "corpora": [PTB, RESPLIT], "missing": {},
        "runs": runs,
    }  # fmt: skip
    return Report(**{**values, **changed})


def status(found: Report, row: str, column: str, corpus: str = "PTB") -> tuple[str, str]:
    """Verdict and reason of a cell."""
    (cell,) = [
        c for c in found.cells() if (c.row, c.column, c.corpus) == (row, column, corpus)
    ]  # fmt: skip
    return cell.verdict, cell.reason


# --- cells --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "verdict"),
    # 101.4 ± half of its last digit, and twice 0.05 of ours: 0.15 on either side
    [
        (101.26, "reproduced"),
        (101.54, "reproduced"),
        (101.24, "not reproduced"),
        (101.56, "not reproduced"),
    ],
)
def test_a_value_is_ours_within_our_error_and_half_a_digit(ours: float, verdict: str) -> None:
    found = report(runs={("VAE", "ptb"): [run(ours, 0.05)]})
    assert status(found, "VAE", "nll")[0] == verdict
    assert "apart" in status(found, "VAE", "nll")[1]


def test_the_error_over_seeds_counts_too() -> None:
    runs = {("VAE", "ptb"): [run(100.0 + seed, seed=seed) for seed in (0, 1, 2)]}
    # 101 ± 0.577: twice that, and half a digit
    assert status(report(runs=runs), "VAE", "nll")[0] == "reproduced"
    other = published(rows=[{**ROWS[0], "values": {"ptb": [102.3, 0.0]}}])
    assert status(report(runs=runs, published=other), "VAE", "nll")[0] == "not reproduced"


def test_values_are_not_compared_where_they_are_not_of_the_same() -> None:
    found = report()
    assert status(found, "VAE", "kl") == ("cannot be compared", "of another prior")
    assert status(found, "VAE", "nll", "Yahoo") == ("cannot be compared", "it is a re-split")
    assert status(found, "LM", "kl")[1] == "the paper prints none; we have none"
    assert status(found, "BN", "nll", "Yahoo")[1] == "we have none; it is a re-split"
    whole = published(
        columns={"nll": {"label": "NLL", "estimator": "a bound"}, "kl": {"label": "KL"}}
    )
    assert status(report(published=whole), "LM", "nll") == ("cannot be compared", "a bound")


def test_the_small_protocol_never_compares_values() -> None:
    found = report("small")
    assert {cell.verdict for cell in found.cells()} == {"cannot be compared"}
    assert "small protocol" in status(found, "VAE", "nll")[1]
    rows = [*table_rows(found.to_markdown(), "PTB"), *table_rows(found.to_markdown(), "Yahoo")]
    assert not any(mark in cell for row in rows for cell in row for mark in "✓✗")
    assert "cannot be compared with the paper's, orderings can" in found.to_markdown()


@pytest.mark.parametrize(
    ("printed", "half"),
    [
        ([328.0], 0.5),
        ([328.0, None, 328.6], 0.05),
        ([0.25, 0.3], 0.005),
        ([-2.5], 0.05),
        ([None], 0.5),
    ],
)
def test_half_of_the_last_digit_of_a_column(printed: list[float | None], half: float) -> None:
    assert half_a_digit(printed) == pytest.approx(half)


def test_numbers_as_they_are_shown() -> None:
    assert [show(value) for value in (None, 328.0, 328.6, 0.05)] == ["–", "328", "328.6", "0.05"]
    found = Figure(101.26, 0.123, 3)
    assert show_figure(found, 101.4) == "101.26 ± 0.12"
    assert show_figure(found, 101.0) == "101.3 ± 0.1"
    assert show_figure(Figure(12345.6, None, 1), None) == "12346"
    assert show_figure(Figure(126.4471, None, 1), 100.85) == "126.45"
    assert show_figure(Figure(22214700.0, None, 1), 310.29) == "2.2e+07"
    assert show_figure(Figure(26.0, None, 1), 8.1) == "26"
    assert show_figure(None, 1.0) == "–"
    assert show_figure(Figure(-0.001, None, 1), 1.0) == "0.0"


# --- the page -----------------------------------------------------------------------------------


def table_rows(markdown: str, corpus: str) -> list[list[str]]:
    """The rows of a corpus's table."""
    part = markdown.partition(f"## {corpus}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_row_and_claim_once() -> None:
    page = report().to_markdown()
    assert [row[0] for row in table_rows(page, "PTB")] == ["VAE", "LM"]
    assert [row[0] for row in table_rows(page, "Yahoo")] == ["VAE", "BN"]
    vae, lm = table_rows(page, "PTB")
    assert vae == ["VAE", "101.4", "101.30 ✓", "0[1]", "0"]
    assert lm == ["LM", "100", "99 ✗", "–", "–"]
    assert "[1] of another prior" in page
    for claim in CLAIMS:
        assert sum(claim["text"] in line for line in page.splitlines()) == 2  # a corpus each
    assert "**Claims: 2 reproduced, 2 not reproduced.**" in page
    assert "it is a re-split" in page
    assert "`yahoo-resplit`" in page
    assert "`uncollapse reproduce tiny-table1 --preset paper`" in page
    assert "Pairs of rows, as the paper orders them: NLL 1 alike, 0 opposed, 0 undecided." in page


def test_measured_figures_stand_beside_once() -> None:
    page = report(published=published(measured=["nll", "mi"]))
    head = next(line for line in page.to_markdown().splitlines() if "NLL, paper" in line)
    assert head == "| | NLL, paper | ours | KL, paper | ours | *mi* |"
    places = [(cell.corpus, cell.row, cell.column) for cell in page.cells()]
    assert len(places) == len(set(places)) == 4 * 3


def test_what_is_missing_or_failed_is_named() -> None:
    found = report(
        corpora=[PTB],
        missing={"yahoo": "yahoo lacks test.txt", "smd": "smd is not here"},
        failures=[("ptb, bn-vae, seed 0", "not enough memory; see the log")],
    )
    page = found.to_markdown()
    assert "**Yahoo is not here**: yahoo lacks test.txt." in page
    assert "**smd is not here**: smd is not here." in page  # what a row is trained on alone
    assert "- ptb, bn-vae, seed 0: not enough memory; see the log" in page
    assert "## Yahoo" not in page
    values = found.to_dict()
    assert values["missing"] == found.missing
    assert values["failures"] == [["ptb, bn-vae, seed 0", "not enough memory; see the log"]]


# --- files --------------------------------------------------------------------------------------


def test_the_three_forms_agree(tmp_path: Path) -> None:
    found = report()
    found.write(tmp_path)
    stem = f"{TABLE}-paper"
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{stem}.{end}" for end in ("md", "json", "csv")
    }
    values = read_sealed(tmp_path / f"{stem}.json")
    rows = list(csv.DictReader(io.StringIO((tmp_path / f"{stem}.csv").read_text())))
    assert len(rows) == len(values["cells"]) == 4 * 2
    for row, cell in zip(rows, values["cells"], strict=True):
        assert row.keys() == cell.keys()
        for key, value in cell.items():
            assert row[key] == ("" if value is None else str(value))
    page = (tmp_path / f"{stem}.md").read_text()
    for cell in values["cells"]:
        shown = next(row for row in table_rows(page, cell["corpus"]) if row[0] == cell["row"])
        place = {"nll": 2, "kl": 4}[cell["column"]]
        assert ("✓" in shown[place]) == (cell["verdict"] == "reproduced")
        assert ("✗" in shown[place]) == (cell["verdict"] == "not reproduced")
        assert (shown[place] == "–") == (cell["ours"] is None)
    assert [claim["verdict"] for claim in values["claims"]] == [
        judgement.verdict for judgement in found.judgements
    ]
    check_untouched(tmp_path, TABLE, "paper")
    found.write(tmp_path)  # again, over what was not touched


def test_an_edited_file_stops_everything_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, corpora = tmp_path / "out", write_corpora(tmp_path / "corpora")
    use_table(monkeypatch, published())
    begun: list[Any] = []

    def run_all(tasks: Any, *_: Any) -> list[Any]:
        begun.append(tasks)
        return []

    monkeypatch.setattr(reproduce, "run_all", run_all)
    reproduce.reproduce(TABLE, out, corpora=corpora)
    assert len(begun) == 1
    path = out / f"{TABLE}-small.json"
    edited = json.loads(path.read_text())
    edited["claims"][0]["verdict"] = "reproduced"
    path.write_text(json.dumps(edited))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=f"{TABLE}-small.json was edited by hand"):
        reproduce.reproduce(TABLE, out, corpora=corpora)
    assert len(begun) == 1
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        reproduce.reproduce(TABLE, out, corpora=corpora)
    assert len(begun) == 1


# --- which records stand behind a row -----------------------------------------------------------


def test_records_are_found_by_preset_edition_and_system() -> None:
    rows = [
        {"label": "VAE", "recipe": "vae"},
        {"label": "wide", "recipe": "vae", "keep": ["decoder.hidden_dim=9"]},
        {"label": "moved", "recipe": "vae", "trained_on": "yahoo"},
        {"label": "test set"},
    ]
    given = [
        record("vae", 1), record("vae", 0), record("vae", edition="yahoo-resplit"),
        record("vae", preset="paper"), record("vae,hidden_dim=9"), record("bn-vae"),
        record("vae,trained_on=yahoo-resplit"),
    ]  # fmt: skip
    here = {"ptb": "ptb", "yahoo": "yahoo-resplit"}
    found = runs_of(published(rows=rows, claims=[]), here, "small", given)
    assert found == {
        ("VAE", "ptb"): [given[1], given[0]],  # in the order of their seeds
        ("VAE", "yahoo"): [given[2]],
        ("wide", "ptb"): [given[4]],
        ("moved", "ptb"): [given[6]],
        ("moved", "yahoo"): [given[2]],
    }
    # a corpus that stands in for the one of training: it is the plain run
    same = runs_of(published(rows=rows, claims=[]), {"ptb": "ptb", "yahoo": "ptb"}, "small", given)
    assert same["moved", "ptb"] == same["VAE", "ptb"]


# --- what a file of a table must be -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": [ROWS[0], ROWS[0]]}, "two rows have the same label"),
        ({"rows": [{**ROWS[0], "values": {"ptb": [1.0]}}]}, "not one value a column"),
        ({"rows": [{**ROWS[0], "values": {"smd": [1.0, 2.0]}}]}, "unknown corpus smd"),
        ({"rows": [{**ROWS[0], "figures": {"ppl": "nll"}}]}, "unknown column ppl"),
        ({"claims": [{**CLAIMS[0], "left": {"row": "AE", "column": "nll"}}]}, "unknown row AE"),
        ({"claims": [{**CLAIMS[0], "left": {"row": "VAE"}}]}, "a row needs a column"),
        ({"claims": [{**CLAIMS[0], "right": {"column": "nll"}}]}, "a row needs a column"),
        ({"claims": [{**CLAIMS[0], "on": ["smd"]}]}, "unknown corpus smd"),
        ({"claims": [{**CLAIMS[0], "relation": "="}]}, "relation"),
        ({"titel": "x"}, "titel"),
    ],
)
def test_a_table_is_checked(changed: dict[str, Any], said: str) -> None:
    content = published().model_dump(exclude={"name"})
    with pytest.raises(UserError, match=f"{TABLE}: .*{said}") as error:
        parse_published(TABLE, {**content, **changed})
    assert len(str(error.value).splitlines()) == 1
