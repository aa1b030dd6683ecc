"""A table of systems and metrics that keeps its standard errors, units and gaps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DASH = "–"
TEXT_WIDTH = 100
ACRONYMS = {
    **{name: name.upper() for name in ("kl", "elbo", "nll", "ppl", "mi", "bleu", "rouge", "twr")},
    "ivae": "iVAE",
    "l": "L",  # ROUGE-L
    "f1": "F1",
    "wae": "(WAE)",  # by the protocol of DialogWAE
    "cvae": "(CVAE)",  # by that of the CVAE of Zhao et al.
    "bilstm": "biLSTM",
}
# where the parts of a name, joined, would not say what the field calls the figure
HEADINGS = {
    "kl_c": "KL(c)",
    "kl_z_average": "KL(z) avg.",
    "kl_z_mixture": "KL(z) mix.",
    "dispersion": "L_d",
    "variance": "Var",
    "mi_c": "L_mi",
    "mi_c_mean": "L_mi / var.",
    "cluster_homogeneity": "homogeneity",
    "cluster_completeness": "completeness",
    "cluster_purity": "purity",
    "cluster_ami": "AMI",
    "bleu_sacre": "sacreBLEU",
}
# of a supervised column; that of a probe has a number of labels in place of the column
ORDER = re.compile(r"(?P<what>bleu|distinct)_(?P<order>\d)(?P<rule>_.*)")
ACCURACY = re.compile(r"accuracy_(?P<column>\D.*)")
OVER_SEEDS = "± is the standard error over seeds (a single finished seed: of the estimator)"
OF_ESTIMATOR = "± is the standard error of the estimator"

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """A figure with its standard error; None where there is none."""

    value: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class Column:
    """What a metric is."""

    name: str
    unit: str
    definition: str
    estimator: str
    decimals: int

    @property
    def heading(self) -> str:
        """Such as ``NLL`` or ``active units``."""
        if self.name in HEADINGS:
            return HEADINGS[self.name]
        if accuracy := ACCURACY.fullmatch(self.name):
            return f"accuracy ({accuracy['column']})"
        # BLEU-4, distinct-2
        name = ORDER.sub(r"\g<what>-\g<order>\g<rule>", self.name)
        parts = (part.partition("-") for part in name.split("_"))
        return " ".join(ACRONYMS.get(part, part) + dash + n for part, dash, n in parts)

    @property
    def shown_unit(self) -> str:
        """The unit, unless the heading says it: active units are counted in units."""
        return "" if self.unit.lower() in self.heading.lower() else self.unit

    def format(self, cell: Cell) -> tuple[str, str]:
        """The value and ``± error``, each possibly empty or a dash."""
        if cell.value is None or not math.isfinite(cell.value):
            return DASH, ""
        error = cell.standard_error
        shown = "" if error is None or not math.isfinite(error) else f"± {error:.{self.decimals}f}"
        return f"{cell.value:.{self.decimals}f}".replace("-", "−"), shown


@dataclass(frozen=True)
class Row:
    """One system; ``note`` says how many of its seeds the figures are from, if not all."""

    system: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Systems by metrics.

    Attributes
    ----------
    columns, rows
        A row has a cell a column.
    errors : str
        What the standard errors are.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    errors: str

    def to_text(self) -> str:
        """Aligned columns; a table too wide for a line goes on below, systems named again."""
        if not self.columns:
            return "\n".join(_named(row) for row in self.rows)
        names = ["", "", *(_named(row) for row in self.rows)]
        first = _pad(names, left=True)
        blocks: list[list[list[str]]] = [[first]]
        for number, column in enumerate(self.columns):
            cells = [" ".join(column.format(row.cells[number])).strip() for row in self.rows]
            padded = _pad([column.heading, column.shown_unit, *cells], left=False)
            width = sum(len(block[0]) + 2 for block in blocks[-1]) + len(padded[0])
            if width > TEXT_WIDTH and len(blocks[-1]) > 1:
                blocks.append([first])
            blocks[-1].append(padded)
        texts = [
            "\n".join("  ".join(line).rstrip() for line in zip(*b, strict=True)) for b in blocks
        ]
        return "\n\n".join(texts)

    def to_markdown(self) -> str:
        """A pipe table."""
        headings = [
            f"{column.heading} ({column.shown_unit})" if column.shown_unit else column.heading
            for column in self.columns
        ]
        lines = [["system", *headings], ["---", *["---:" for _ in self.columns]]]
        for row in self.rows:
            pairs = zip(self.columns, row.cells, strict=True)
            lines.append([_named(row), *(" ".join(c.format(cell)).strip() for c, cell in pairs)])
        return "\n".join(f"| {' | '.join(_no_pipe(cell) for cell in line)} |" for line in lines)


def build_table(
    runs: Mapping[str, Sequence[Metrics]],
    seeds: int,
    floor: float | None = None,
    order: Sequence[str] | None = None,
) -> Table:
    """Average over seeds and lay out.

    Parameters
    ----------
    runs : mapping
        Of each system, the metrics of every finished seed; possibly none.
    seeds : int
        How many there should be.
    floor : float or None
        Exact entropy of the language in nats per sentence, a row of its own: no NLL can be
        lower but by chance.
    order : sequence of str, optional
        Of the columns; without it, that in which the metrics come.
    """
    every: dict[str, Mapping[str, Any]] = {}
    for metrics in (metrics for system in runs.values() for metrics in system):
        for name, metric in metrics.items():
            # a dash has no estimator to tell of; another system's figure has
            if name not in every or every[name]["value"] is None:
                every[name] = metric
    if order is not None:
        every = {name: every[name] for name in order if name in every}
    cells = {
        system: tuple(_average([m.get(name, {}) for m in metrics]) for name in every)
        for system, metrics in runs.items()
    }
    columns = tuple(
        Column(
            name,
            str(metric["unit"]),
            str(metric["definition"]),
            str(metric["estimator"] or ""),
            _decimals([row[number] for row in cells.values()]),
        )
        for number, (name, metric) in enumerate(every.items())
    )
    rows = [
        Row(system, cells[system], _note(len(metrics), seeds)) for system, metrics in runs.items()
    ]
    if floor is not None and "nll" in every:
        known = tuple(Cell(floor) if name == "nll" else Cell() for name in every)
        rows.append(Row("entropy of the language", known, "exact"))
    return Table(columns, tuple(rows), OVER_SEEDS if seeds > 1 else OF_ESTIMATOR)


def _average(found: Sequence[Mapping[str, Any]]) -> Cell:
    known = [metric for metric in found if metric.get("value") is not None]
    values = [float(metric["value"]) for metric in known]
    if not values:
        return Cell()
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Cell(mean, known[0].get("standard_error"))
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Cell(mean, math.sqrt(variance / len(values)))


def _decimals(cells: Sequence[Cell]) -> int:
    """None for counts, two for most, four where all is small, such as a share of words."""
    values = [abs(cell.value) for cell in cells if cell.value is not None]
    errors = [cell.standard_error for cell in cells if cell.standard_error is not None]
    if all(float(number).is_integer() for number in (*values, *errors)):
        return 0
    return 4 if max(values) < 0.5 else 2


def _note(finished: int, seeds: int) -> str:
    if finished == seeds:
        return ""
    return f"{finished} of {seeds} seeds" if finished else "failed"


def _named(row: Row) -> str:
    return f"{row.system} ({row.note})" if row.note else row.system


def _pad(cells: Sequence[str], *, left: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]


def _no_pipe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
