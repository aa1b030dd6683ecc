"""The papers' tables and figures as data: what was printed, where, and what was claimed of it.

One YAML file each in ``published/``. A row names the recipe that is its system; a claim compares
two cells, and is what a reproduction is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from uncollapse.errors import UserError, unknown_name


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Section):
    """A column of a table.

    Attributes
    ----------
    label : str
        As the paper prints it.
    better : {'lower', 'higher'} or None
        None where more is not better, such as KL.
    scale : float
        Our figure times this is in the unit of the table, e.g. 100 for percent.
    estimator : str or None
        Why the printed figures are not comparable with ours in value; None: they are.
    cost : bool
        Of the run (seconds, updates), not of the model.
    """

    label: str
    better: Literal["lower", "higher"] | None = None
    scale: float = 1.0
    estimator: str | None = None
    cost: bool = False


class Row(_Section):
    """A system as a row of a table.

    Attributes
    ----------
    label : str
        As the paper prints it.
    recipe : str or None
        The packaged recipe; None: a row that is not trained, such as the test set's own.
    set : list of str
        What the row changes in the recipe. Widths, optimisers and epochs among them give way
        to the small protocol.
    keep : list of str
        What it changes at any size.
    figures : mapping
        For single columns, another figure of ours that is what the paper means there, such as
        ``nll: nll_twr``.
    estimators : mapping
        For single columns, why the printed value is not comparable with ours.
    values : mapping
        By corpus, the printed figure of each column in order; None where there is none.
    errors : mapping
        Likewise the printed deviations, where there are any.
    trained_on : str or None
        Another corpus than that which is measured.
    """

    label: str
    recipe: str | None = None
    set: list[str] = []
    keep: list[str] = []
    figures: dict[str, str] = {}
    estimators: dict[str, str] = {}
    values: dict[str, list[float | None]] = {}
    errors: dict[str, list[float | None]] = {}
    trained_on: str | None = None


class Cell(_Section):
    """A figure of a row, perhaps with a number added, perhaps multiplied.

    Attributes
    ----------
    row : str or None
        The label; None: a plain number.
    column : str or None
        A column's key, of which the row's ``figures`` may have another; or any figure that is
        measured.
    times : float
    plus : float
        In the unit of the table, or of the figure if it is no column.
    """

    row: str | None = None
    column: str | None = None
    times: float = 1.0
    plus: float = 0.0


class Claim(_Section):
    """What a paper says of its table, as a comparison of two cells on each of some corpora.

    Attributes
    ----------
    text : str
        A sentence.
    left, right : Cell
    relation : {'>', '<', '~'}
        ``~``: no more apart than ``within``.
    within : float
        For ``~``, in the unit of the table, or of the figure if it is no column.
    on : list of str
        Corpora; empty: all of the table.
    explanation : mapping
        By preset, or by ``preset/corpus``, why ours differs, with what was measured to show it.
        Printed only where the claim is not reproduced.
    """

    text: str
    left: Cell
    relation: Literal[">", "<", "~"]
    right: Cell
    within: float = 0.0
    on: list[str] = []
    explanation: dict[str, str] = {}


class Published(_Section):
    """A table or figure of a paper.

    Attributes
    ----------
    name : str
        E.g. ``bn-table1``.
    kind : {'table', 'figure', 'examples'}
    title : str
        What it shows.
    source : str
        The paper and the place.
    reads : {'sentences', 'dialogues'}
        How a corpus of dialogues is read.
    corpora : mapping
        The project's name of a corpus to that of the paper.
    columns : mapping
        The name of our figure to the column.
    measured : list of str
        Further figures that are measured and shown beside, such as the honest ``nll``.
    label_column : mapping
        By corpus, the labels that figures need.
    rows : list of Row
    claims : list of Claim
    notes : list of str
        What one must know to read it: slips of the paper, columns that were reconstructed.
    settings : mapping
        For a figure: further settings of its computation.
    """

    name: str
    kind: Literal["table", "figure", "examples"]
    title: str
    source: str
    reads: Literal["sentences", "dialogues"] = "sentences"
    corpora: dict[str, str] = {}
    columns: dict[str, Column] = {}
    measured: list[str] = []
    label_column: dict[str, str] = {}
    rows: list[Row] = []
    claims: list[Claim] = []
    notes: list[str] = []
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Published:
        labels = [row.label for row in self.rows]
        if len({*labels}) < len(labels):
            raise ValueError("two rows have the same label")
        for row in self.rows:
            for corpus, printed in (*row.values.items(), *row.errors.items()):
                if corpus not in self.corpora:
                    raise ValueError(f"row {row.label}: unknown corpus {corpus}")
                if len(printed) != len(self.columns):
                    raise ValueError(f"row {row.label}, {corpus}: not one value a column")
            for column in (*row.figures, *row.estimators):
                if column not in self.columns:
                    raise ValueError(f"row {row.label}: unknown column {column}")
        for claim in self.claims:
            for cell in (claim.left, claim.right):
                if cell.row is not None and cell.row not in labels:
                    raise ValueError(f"claim {claim.text!r}: unknown row {cell.row}")
                if (cell.row is None) != (cell.column is None):
                    raise ValueError(f"claim {claim.text!r}: a row needs a column, and it a row")
            for corpus in claim.on:
                if corpus not in self.corpora:
                    raise ValueError(f"claim {claim.text!r}: unknown corpus {corpus}")
        return self

    def row(self, label: str) -> Row:
        """The row of a label."""
        return next(row for row in self.rows if row.label == label)

    def printed(self, label: str, corpus: str, column: str) -> float | None:
        """What the paper prints; None where it prints nothing."""
        values = self.row(label).values.get(corpus)
        return values[list(self.columns).index(column)] if values is not None else None


@cache
def published_names() -> list[str]:
    """Names of all tables and figures: by paper, tables first, in the order of their numbers."""
    folder = resources.files("uncollapse.reproduction").joinpath("published")
    names = [file.name[: -len(".yaml")] for file in folder.iterdir() if file.name.endswith(".yaml")]

    def order(name: str) -> tuple[str, str, int]:
        paper, _, place = name.partition("-")
        kind = place.rstrip("0123456789")
        return paper, {"table": "a", "figure": "b"}.get(kind, kind), int(place[len(kind) :])

    return sorted(names, key=order)


@cache
def load_published(name: str) -> Published:
    """A table or figure by its name.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    if name not in published_names():
        raise unknown_name("table or figure", name, published_names())
    folder = resources.files("uncollapse.reproduction")
    file = folder.joinpath("published", f"{name}.yaml")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    why = load_explanations().get(name, {})
    for claim in values.get("claims", ()):
        if claim["text"] in why:
            claim["explanation"] = why[claim["text"]]
    return parse_published(name, values)


@cache
def load_explanations() -> dict[str, dict[str, dict[str, str]]]:
    """By table and claim: why ours differs, by preset or ``preset/corpus``.

    They are ours, not the papers', and so in a file of their own, ``explanations.yaml``.
    """
    file = resources.files("uncollapse.reproduction").joinpath("explanations.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def parse_published(name: str, values: Mapping[str, Any]) -> Published:
    """Check the content of a file.

    Raises
    ------
    UserError
        Naming the first thing that is wrong.
    """
    try:
        return Published.model_validate({"name": name, **values})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: {f'{place}: ' if place else ''}{first['msg']}") from None
