"""A table or figure of a paper beside ours, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uncollapse.evaluation.metric import DASH
from uncollapse.reproduction.verdicts import MARKS, Figure, Judgement, cell_figure

if TYPE_CHECKING:
    from uncollapse.reproduction.report import CorpusUsed, Report

SMALL = (
    "Ours are of the small protocol (corpora cut, layers of 128, few epochs, one budget for all "
    "systems): values cannot be compared with the paper's, orderings can."
)
MILLION = 1e6


def page_of(report: Report) -> str:
    """A page: tables, claims, orderings, notes and where it all comes from."""
    table = report.published
    lines = [f"# {table.name}: {table.title}", "", f"*{table.source}*", ""]
    if report.preset == "small" and report.corpora:
        lines += [SMALL, ""]
    for corpus, why in report.missing.items():
        lines += [f"**{table.corpora.get(corpus, corpus)} is not here**: {why}.", ""]
    lines += _claims_table(report.judgements)
    lines += [f"![{table.title}]({name})\n" for name in report.pictures[:1]]
    if report.markdown:
        lines += [report.markdown, ""]
    if table.columns:
        for corpus in report.corpora:
            lines += _corpus_table(report, corpus)
    if report.failures:
        lines += ["## Failed runs", ""]
        lines += [*(f"- {run}: {why}" for run, why in report.failures), ""]
    if table.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in table.notes), ""]
    return "\n".join(lines + _provenance(report))


def _corpus_table(report: Report, corpus: CorpusUsed) -> list[str]:
    table = report.published
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
            cell = report.cell(corpus, row, column)
            found = cell_figure(table, row, corpus.name, column, report.runs)
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
    counted = report.orderings(corpus.name)
    if counted:
        parts = [
            f"{table.columns[c].label} {o.alike} alike, {o.opposed} opposed, "
            f"{o.undecided} undecided"
            for c, o in counted.items()
        ]
        lines += ["", f"Pairs of rows, as the paper orders them: {'; '.join(parts)}."]
    return [*lines, ""]


def _provenance(report: Report) -> list[str]:
    records = [record for found in report.runs.values() for record in found]
    command = f"uncollapse reproduce {report.published.name} --preset {report.preset}"
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
