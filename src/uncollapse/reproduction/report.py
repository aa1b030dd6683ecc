"""Paper beside ours, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from uncollapse.errors import UserError
from uncollapse.evaluation.metric import DASH
from uncollapse.reproduction.published import Published, Row, load_explanations
from uncollapse.reproduction.records import Record, environment, read_sealed, write_sealed
from uncollapse.reproduction.verdicts import (
    ERRORS,
    MARKS,
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

SMALL = (
    "Ours are of the small protocol (corpora cut, layers of 128, few epochs, one budget for all "
    "systems): values cannot be compared with the paper's, orderings can."
)
MILLION = 1e6
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
            self._cell(corpus, row, column)
            for corpus in self.corpora
            for row in self.published.rows
            if not row.values or corpus.name in row.values
            for column in dict.fromkeys((*self.published.columns, *self.published.measured))
        ]

    def _cell(self, corpus: CorpusUsed, row: Row, column: str) -> CellFound:
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

    # --- the three forms ------------------------------------------------------------------

    def to_markdown(self) -> str:
        """A page: tables, claims, orderings, notes and where it all comes from."""
        table = self.published
        lines = [f"# {table.name}: {table.title}", "", f"*{table.source}*", ""]
        if self.preset == "small" and self.corpora:
            lines += [SMALL, ""]
        for corpus, why in self.missing.items():
            lines += [f"**{table.corpora.get(corpus, corpus)} is not here**: {why}.", ""]
        lines += _claims_table(self.judgements)
        lines += [f"![{table.title}]({name})\n" for name in self.pictures[:1]]
        if self.markdown:
            lines += [self.markdown, ""]
        if table.columns:
            for corpus in self.corpora:
                lines += self._corpus_table(corpus)
        if self.failures:
            lines += ["## Failed runs", ""]
            lines += [*(f"- {run}: {why}" for run, why in self.failures), ""]
        if table.notes:
            lines += ["## Notes", "", *(f"- {note}" for note in table.notes), ""]
        return "\n".join(lines + self._provenance())

    def _corpus_table(self, corpus: CorpusUsed) -> list[str]:
        table = self.published
        lines = [f"## {corpus.label}", "", f"`{corpus.edition}`: {corpus.data}."]
        if not corpus.comparable:
            lines.append(f"Not the paper's texts: {corpus.reason}.")
        marks: dict[str, str] = {}
        columns = [*table.columns, *(m for m in table.measured if m not in table.columns)]
        head = []
        for column in columns:
            if column in table.columns:
                head += [f"{table.columns[column].label}, paper", "ours"]
            else:
                head.append(f"*{column.replace('_', ' ')}*")
        rows = []
        for row in table.rows:
            if row.values and corpus.name not in row.values:
                continue
            cells = []
            for column in columns:
                cell = self._cell(corpus, row, column)
                found = cell_figure(table, row, corpus.name, column, self.runs)
                if column in table.columns:
                    why = row.estimators.get(column)
                    note = "" if not why else marks.setdefault(why, f"[{len(marks) + 1}]")
                    cells.append(show(cell.paper) + note)
                    own = row.figures.get(column)
                    named = f" (`{own}`)" if own else ""
                    sign = MARKS[cell.verdict] if cell.verdict != "cannot be compared" else ""
                    cells.append(f"{show_figure(found, cell.paper)}{named} {sign}".rstrip())
                else:
                    cells.append(show_figure(found, None))
            rows.append(f"| {row.label} | {' | '.join(cells)} |")
        lines += ["", f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|", *rows, ""]
        lines += [f"- {mark} {why}" for why, mark in marks.items()]
        whole = {c: col.estimator for c, col in table.columns.items() if col.estimator}
        lines += [f"- {table.columns[c].label}, as printed: {why}" for c, why in whole.items()]
        counted = self.orderings(corpus.name)
        if counted:
            parts = [
                f"{table.columns[c].label} {o.alike} alike, {o.opposed} opposed, "
                f"{o.undecided} undecided"
                for c, o in counted.items()
            ]
            lines += ["", f"Pairs of rows, as the paper orders them: {'; '.join(parts)}."]
        return [*lines, ""]

    def _provenance(self) -> list[str]:
        records = [record for found in self.runs.values() for record in found]
        command = f"uncollapse reproduce {self.published.name} --preset {self.preset}"
        if not records:
            return [f"Made by `{command}`."]
        seeds = sorted({record.seed for record in records})
        made = {
            key: sorted({str(record.environment.get(key)) for record in records})
            for key in ("commit", "date", "hardware", "torch")
        }
        samples = sorted({int(record.protocol.get("samples", 0)) for record in records})
        return [
            f"Made by `{command}`; {len(records)} runs, seeds {', '.join(map(str, seeds))}, "
            f"{'/'.join(map(str, samples))} importance samples; "
            + "; ".join(f"{key} {', '.join(values)}" for key, values in made.items())
            + "."
        ]

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


def _claims_table(found: Sequence[Judgement]) -> list[str]:
    if not found:
        return []
    lines = ["| | claim | on | ours | why |", "|---|---|---|---|---|"]
    lines += [
        f"| {MARKS[one.verdict]} {one.verdict} | {one.text} | {one.corpus or DASH} "
        f"| {one.evidence or DASH} | {one.reason or DASH} |"
        for one in found
    ]
    counted = {v: sum(one.verdict == v for one in found) for v in MARKS}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counted.items() if count)
    return [f"**Claims: {summary}.**", "", *lines, ""]


def half_a_digit(printed: Iterable[float | None]) -> float:
    """Half of the last digit of the numbers of a column; 328.0 may be printed as 328."""
    shown = [repr(value).removesuffix(".0") for value in printed if value is not None]
    decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
    return 0.5 * 10.0**-decimals


def show(value: float | None, decimals: int | None = None) -> str:
    """A printed number as it was printed."""
    if value is None:
        return DASH
    if decimals is not None:
        return f"{value:z.{decimals}f}"
    return repr(value).removesuffix(".0")


def show_figure(found: Figure | None, paper: float | None) -> str:
    """Our figure, with one more digit than the paper's, five at most, and the error over seeds."""
    if found is None:
        return DASH
    if abs(found.value) >= MILLION:
        return f"{found.value:.1e}"
    wanted = 2 if paper is None else min(4, len(show(paper).partition(".")[2]) + 1)
    decimals = min(wanted, max(0, 5 - len(f"{abs(found.value):.0f}")))
    if found.error is None and found.value == round(found.value):  # a count
        decimals = 0
    text = show(found.value, decimals)
    return text if found.error is None else f"{text} ± {found.error:.{decimals}f}"


def runs_of(
    published: Published, editions: dict[str, str], preset: str, records: Sequence[Record]
) -> dict[tuple[str, str], list[Record]]:
    """The records behind each row and corpus of a table.

    Parameters
    ----------
    published : Published
    editions : dict of str to str
        The edition that stands behind each corpus of the table.
    preset : str
    records : sequence of Record
        Any; those of other systems, editions and presets are passed by.
    """
    from uncollapse.reproduction.tasks import system_name

    by_key: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.preset == preset:
            by_key.setdefault((record.edition, record.system), []).append(record)
    found = {}
    for name, edition in editions.items():
        for row in published.rows:
            if row.recipe is None:
                continue
            system = system_name(row.recipe, row.keep)
            source = editions.get(row.trained_on or name, row.trained_on)
            if source != edition:
                system = f"{system},trained_on={source}"
            own = sorted(by_key.get((edition, system), []), key=lambda record: record.seed)
            if own:
                found[row.label, name] = own
    return found
