"""A table of figures as HTML, with the definitions of its columns."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uncollapse.report.table import Row, Table


def figures(table: Table) -> str:
    """A table, and what its figures are."""
    return _table(table) + _definitions(table)


def _table(table: Table) -> str:
    if not table.columns:
        return "<p>No run has finished.</p>\n"
    headings = "".join(
        f'<th scope="col">{escape(column.heading)}<small>{escape(column.shown_unit)}</small></th>'
        for column in table.columns
    )
    rows = "".join(f"<tr>{_row(table, row)}</tr>\n" for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Figures">\n<table>\n'
        f'<thead><tr><th scope="col">system</th>{headings}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
        f'<p class="note">{escape(table.errors)}. A dash: there is no such figure.</p>\n'
    )


def _row(table: Table, row: Row) -> str:
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    cells = []
    for column, cell in zip(table.columns, row.cells, strict=True):
        value, error = column.format(cell)
        cells.append(f"<td>{value}{f'<small>{error}</small>' if error else ''}</td>")
    return f'<th scope="row">{escape(row.system)}{note}</th>{"".join(cells)}'


def _definitions(table: Table) -> str:
    pairs = "".join(
        f"<dt>{escape(c.heading)}</dt><dd>{escape(c.definition)}"
        + (f' <span class="estimator">{escape(c.estimator)}</span>' if c.estimator else "")
        + "</dd>\n"
        for c in table.columns
    )
    return (
        f"<details>\n<summary>What the figures are</summary>\n<dl>\n{pairs}</dl>\n</details>\n"
        if pairs
        else ""
    )
