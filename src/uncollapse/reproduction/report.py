"""Paper beside ours, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from uncollapse.errors import UserError
from uncollapse.reproduction.page import page_of
from uncollapse.reproduction.published import Published, Row, load_explanations
from uncollapse.reproduction.records import environment, read_sealed, write_sealed
from uncollapse.reproduction.verdicts import (
    ERRORS,
    Figure,
    Judgement,
    Orderings,
    Runs,
    Verdict,
    cell_figure,
    judgements,
    orderings,
)
from uncollapse.saving import write_text

IN_SMALL = "small protocol: another size of data, model and training"


@dataclass(frozen=True)
class CorpusUsed:
    """Which texts stand behind a corpus of a table.

    Attributes
    ----------
    name : str
        In the table's file.
    label : str
        In the paper.
    edition : str
    data : str
        How much of it was read.
    comparable : bool
    reason : str
        Why published figures are not of the same texts.
    """

    name: str
    label: str
    edition: str
    data: str
    comparable: bool
    reason: str


@dataclass(frozen=True)
class CellFound:
    """A cell of a table: the paper's figure and ours."""

    corpus: str
    edition: str
    row: str
    system: str
    column: str
    paper: float | None
    ours: float | None
    standard_error: float | None
    seeds: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Report:
    """All that a reproduction found.

    Attributes
    ----------
    published : Published
    preset : str
    corpora : list of CorpusUsed
        Those that are here.
    missing : dict of str to str
        Those that are not, and what is lacking.
    runs : mapping
        Records by row and corpus.
    drawn : list of Judgement
        What a figure's own computation says.
    failures : list of (str, str)
        Runs that failed, and why.
    markdown : str
        Of a figure: its numbers.
    pictures : list of str
        File names of what was drawn.
    """

    published: Published
    preset: str
    corpora: list[CorpusUsed]
    missing: dict[str, str]
    runs: Runs
    drawn: list[Judgement] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    markdown: str = ""
    pictures: list[str] = field(default_factory=list)

    @property
    def judgements(self) -> list[Judgement]:
        """Every claim of the paper, judged."""
        here = [corpus.name for corpus in self.corpora]
        found = judgements(self.published, self.preset, here, self.runs)
        return found + [self._explained(judgement) for judgement in self.drawn]

    def _explained(self, judgement: Judgement) -> Judgement:
        """What a figure's own computation says, with our reason why it does not hold."""
        why = load_explanations().get(self.published.name, {}).get(judgement.text, {})
        if judgement.verdict != "not reproduced" or judgement.reason:
            return judgement
        return replace(judgement, reason=why.get(self.preset, ""))

    def orderings(self, corpus: str) -> dict[str, Orderings]:
        """By column: how often two rows stand to each other as in the paper."""
        found = {
            column: orderings(self.published, corpus, column, self.runs)
            for column in self.published.columns
        }
        return {c: o for c, o in found.items() if o.alike + o.opposed + o.undecided}

    def cells(self) -> list[CellFound]:
        """Every cell that the paper prints or that we have, in the table's order."""
        return [
            self.cell(corpus, row, column)
            for corpus in self.corpora
            for row in self.published.rows
            if not row.values or corpus.name in row.values
            for column in dict.fromkeys((*self.published.columns, *self.published.measured))
        ]

    def cell(self, corpus: CorpusUsed, row: Row, column: str) -> CellFound:
        """A cell of a row, whether the paper prints it or not."""
        paper = None
        if column in self.published.columns:
            paper = self.published.printed(row.label, corpus.name, column)
        found = cell_figure(self.published, row, corpus.name, column, self.runs)
        records = self.runs.get((row.label, corpus.name), [])
        verdict, reason = self._status(corpus, row, column, paper, found)
        return CellFound(
            corpus=corpus.label,
            edition=corpus.edition,
            row=row.label,
            system=records[0].system if records else "",
            column=column,
            paper=paper,
            ours=None if found is None else found.value,
            standard_error=None if found is None else found.error,
            seeds=0 if found is None else found.seeds,
            verdict=verdict,
            reason=reason,
        )

    def _status(
        self,
        corpus: CorpusUsed,
        row: Row,
        column: str,
        paper: float | None,
        found: Figure | None,
    ) -> tuple[Verdict, str]:
        """Whether a printed value is ours too; only where it can be."""
        reasons = []
        if paper is None:
            reasons.append("the paper prints none")
        if found is None:
            reasons.append("we have none")
        if self.preset == "small":
            reasons.append(IN_SMALL)
        if not corpus.comparable:
            reasons.append(corpus.reason)
        if column in self.published.columns:
            estimator = row.estimators.get(column) or self.published.columns[column].estimator
            if estimator:
                reasons.append(estimator)
        if reasons or paper is None or found is None:
            return "cannot be compared", "; ".join(reasons)
        column_values = [
            self.published.printed(one.label, corpus.name, column) for one in self.published.rows
        ]
        error = ERRORS * ((found.error or 0.0) + (found.sentences or 0.0))
        error += half_a_digit(column_values)
        gap = abs(paper - found.value)
        return ("reproduced" if gap <= error else "not reproduced"), f"{gap:.3g} apart"

    def to_markdown(self) -> str:
        """A page: tables, claims, orderings, notes and where it all comes from."""
        return page_of(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "name": self.published.name,
            "title": self.published.title,
            "source": self.published.source,
            "preset": self.preset,
            "corpora": [asdict(corpus) for corpus in self.corpora],
            "missing": self.missing,
            "claims": [asdict(judgement) for judgement in self.judgements],
            "cells": [asdict(cell) for cell in self.cells()],
            "orderings": {
                corpus.label: {c: asdict(o) for c, o in self.orderings(corpus.name).items()}
                for corpus in self.corpora
            },
            "failures": [list(failure) for failure in self.failures],
            "drawn": [asdict(judgement) for judgement in self.drawn],
            "markdown": self.markdown,
            "pictures": self.pictures,
            "environment": environment(),
            "runs": [
                {
                    "row": row,
                    "corpus": corpus,
                    **{k: v for k, v in asdict(record).items() if k not in ("metrics", "history")},
                }
                for (row, corpus), found in self.runs.items()
                for record in found
            ],
        }

    def to_csv(self) -> str:
        """A line a cell."""
        written = io.StringIO()
        rows = csv.DictWriter(written, list(CellFound.__dataclass_fields__), lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(cell) for cell in self.cells())
        return written.getvalue()

    def write(self, out: Path, values: dict[str, Any] | None = None) -> None:
        """Write ``NAME-PRESET.md``, ``.json`` and ``.csv``.

        Parameters
        ----------
        out : Path
        values : dict, optional
            What a figure is drawn from.
        """
        stem = out / f"{self.published.name}-{self.preset}"
        write_text(stem.with_suffix(".md"), self.to_markdown() + "\n")
        write_text(stem.with_suffix(".csv"), self.to_csv())
        content = self.to_dict() | ({} if values is None else {"values": values})
        write_sealed(stem.with_suffix(".json"), content)


def check_untouched(out: Path, name: str, preset: str) -> None:
    """Refuse to write over results that were edited by hand.

    Raises
    ------
    RunError
    """
    path = out / f"{name}-{preset}.json"
    if path.is_dir():
        raise UserError(f"{path} is a folder; choose another folder with --out")
    if path.is_file():
        read_sealed(path)


def half_a_digit(printed: Iterable[float | None]) -> float:
    """Half of the last digit of the numbers of a column; 328.0 may be printed as 328."""
    shown = [repr(value).removesuffix(".0") for value in printed if value is not None]
    decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
    return 0.5 * 10.0**-decimals
