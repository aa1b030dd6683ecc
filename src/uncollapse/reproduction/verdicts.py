"""Did it reproduce? Each claim of a paper against ours, and how many orderings agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Literal

from uncollapse.reproduction.published import Cell, Claim, Published, Row
from uncollapse.reproduction.records import Record

Verdict = Literal["reproduced", "not reproduced", "undecided", "cannot be compared", "not run"]
ERRORS = 2.0  # standard errors that a difference must exceed
MARKS = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "undecided": "≈",
    "cannot be compared": "–",
    "not run": "·",
}
TIMING = 0.1  # share by which the time of one run is uncertain: the machine does other things too
TIMES = ("seconds", "cpu_seconds", "seconds_to_best")
# figures that are ratios to the plain VAE of the same corpus
RATIO = "ratio_to_vae"
OVER_SENTENCES = ", errors over sentences"

Runs = Mapping[tuple[str, str], list[Record]]
"""The records of each row and corpus of a table, a seed each."""


@dataclass(frozen=True)
class Figure:
    """A mean over seeds.

    Attributes
    ----------
    value : float
    error : float or None
        Standard error over the seeds; None of a single seed.
    seeds : int
    sentences : float or None
        Standard error over the test sentences of the first seed, where it is known.
    """

    value: float
    error: float | None
    seeds: int
    sentences: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A claim, judged.

    Attributes
    ----------
    text : str
    corpus : str
        The name in the table; empty where there is none.
    verdict : Verdict
    evidence : str
        The numbers.
    reason : str
        Why it did not reproduce, or cannot be compared.
    """

    text: str
    corpus: str
    verdict: Verdict
    evidence: str
    reason: str = ""


@dataclass(frozen=True)
class Orderings:
    """How often two rows stand to each other as in the paper.

    Attributes
    ----------
    alike, opposed, undecided : int
        Pairs of rows that the paper prints differently; undecided are those of ours that differ
        by less than two standard errors (see `doubt`), or not at all.
    """

    alike: int
    opposed: int
    undecided: int


def figure_of(records: list[Record], name: str, scale: float = 1.0) -> Figure | None:
    """The mean of a figure over seeds; None if no run has it."""
    values = [scale * value for record in records if (value := record.value(name)) is not None]
    if not values:
        return None
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    sentences = records[0].metrics.get(name, {}).get("standard_error")
    if name in TIMES:
        sentences = TIMING * values[0] / abs(scale)
    return Figure(
        mean(values), error, len(values), None if sentences is None else abs(scale) * sentences
    )


def cell_figure(
    published: Published, row: Row, corpus: str, column: str, runs: Runs
) -> Figure | None:
    """Our figure for a cell of a table, in the unit of the table."""
    records = runs.get((row.label, corpus), [])
    scale = published.columns[column].scale if column in published.columns else 1.0
    if column == RATIO:
        return _ratio(published, records, corpus, runs)
    return figure_of(records, row.figures.get(column, column), scale)


def _ratio(published: Published, records: list[Record], corpus: str, runs: Runs) -> Figure | None:
    plain = next((row.label for row in published.rows if row.recipe == "vae"), None)
    base = [time_to_best(record) for record in runs.get((plain, corpus), [])] if plain else []
    own = [time_to_best(record) for record in records]
    if not base or not own or None in base or None in own:
        return None
    values = [value / mean(base) for value in own]  # type: ignore[operator,arg-type]
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Figure(mean(values), error, len(values), TIMING * mean(values))


def time_to_best(record: Record) -> float | None:
    """Seconds until the epoch that was kept: of the processor, where those are known.

    They do not depend on what else the machine was doing.
    """
    cost = record.cost
    seconds, until, busy = cost["seconds"], cost["seconds_to_best"], cost["cpu_seconds"]
    if not seconds or until is None:
        return None
    on_gpu = "no GPU" not in record.environment["hardware"]
    return until if busy is None or on_gpu else busy * until / seconds


def judge(published: Published, claim: Claim, corpus: str, preset: str, runs: Runs) -> Judgement:
    """Judge a claim on a corpus."""
    named = published.corpora.get(corpus, "")
    sides = [_side(published, cell, corpus, runs) for cell in (claim.left, claim.right)]
    for cell, side in zip((claim.left, claim.right), sides, strict=True):
        if side is None:
            if not runs.get((cell.row or "", corpus)):
                return Judgement(claim.text, named, "not run", "", f"no run of {cell.row} yet")
            reason = f"no {cell.column} of {cell.row} here"
            return Judgement(claim.text, named, "cannot be compared", "", reason)
    left, right = sides
    assert left is not None
    assert right is not None
    evidence = f"{_said(claim.left, left)} {claim.relation} {_said(claim.right, right)}"
    name = claim.left.column or claim.right.column or ""
    label = published.columns[name].label if name in published.columns else name.replace("_", " ")
    evidence = f"{label}: {evidence}" if label else evidence
    gap = left.value - right.value
    known = [_spread(published, cell.column, corpus, runs) for cell in (claim.left, claim.right)]
    scales = [abs(cell.times) for cell in (claim.left, claim.right)]
    spreads = [s if s is None else t * s for s, t in zip(known, scales, strict=True)]
    error = math.hypot(*map(doubt, (left, right), spreads))
    alone = [s for s in (left, right) if s.seeds == 1]
    if claim.relation == "~":
        evidence += f" within {claim.within:g}"
        verdict: Verdict = "reproduced" if abs(gap) <= claim.within else "not reproduced"
    elif gap == 0 or abs(gap) <= ERRORS * error:
        verdict = "undecided"
    else:
        verdict = "reproduced" if (gap > 0) == (claim.relation == ">") else "not reproduced"
    if alone:
        evidence += "; one seed"
        if error and spreads == [None, None] and claim.relation != "~":
            evidence += ", times within a tenth" if name in (*TIMES, RATIO) else OVER_SENTENCES
    reason = ""
    if verdict == "not reproduced" or (verdict == "undecided" and claim.explanation):
        ways = (f"{preset}/{corpus}", preset)
        reason = next((claim.explanation[way] for way in ways if way in claim.explanation), "")
    return Judgement(claim.text, named, verdict, evidence, reason)


def _side(published: Published, cell: Cell, corpus: str, runs: Runs) -> Figure | None:
    if cell.row is None or cell.column is None:
        return Figure(cell.plus, None, 0)
    found = cell_figure(published, published.row(cell.row), corpus, cell.column, runs)
    if found is None:
        return None
    error, sentences = (
        None if one is None else abs(cell.times) * one for one in (found.error, found.sentences)
    )
    return Figure(cell.times * found.value + cell.plus, error, found.seeds, sentences)


def doubt(found: Figure, spread: float | None) -> float:
    """The standard error that a comparison reckons with.

    Of few seeds the spread is badly known, and of one not at all: that of the other systems then
    stands in for it. Where no system has several seeds, the error over the test sentences does,
    which is too large for figures of the same sentences.

    Parameters
    ----------
    found : Figure
    spread : float or None
        Standard deviation over seeds of the other systems.
    """
    if found.seeds == 0:
        return 0.0
    if spread is not None:
        return max(found.error or 0.0, spread / math.sqrt(found.seeds))
    return found.error if found.error is not None else found.sentences or 0.0


def _spread(published: Published, column: str | None, corpus: str, runs: Runs) -> float | None:
    """Standard deviation of a figure over seeds, pooled over the systems that have several."""
    if column is None:
        return None
    found = []
    for row in published.rows:
        own = cell_figure(published, row, corpus, column, runs)
        if own is not None and own.error is not None:
            found.append((own.error**2 * own.seeds, own.seeds - 1))
    if not found:
        return None
    return math.sqrt(sum(var * df for var, df in found) / sum(df for _, df in found))


def _said(cell: Cell, side: Figure) -> str:
    number = f"{side.value:.4g}" + (f" ± {side.error:.2g}" if side.error else "")
    if cell.row is None:
        return number
    changed = f"{cell.times:g} × " if cell.times != 1 else ""
    changed_after = f" {cell.plus:+g}" if cell.plus else ""
    return f"{changed}{cell.row}{changed_after} {number}"


def judgements(
    published: Published, preset: str, corpora: list[str], runs: Runs
) -> list[Judgement]:
    """Every claim on every corpus that is here."""
    return [
        judge(published, claim, corpus, preset, runs)
        for claim in published.claims
        for corpus in claim.on or published.corpora
        if corpus in corpora
    ]


def orderings(published: Published, corpus: str, column: str, runs: Runs) -> Orderings:
    """How often two rows stand to each other as the paper has them, in one column.

    Rows whose printed figure is another estimator than ours are left out.
    """
    count = {"alike": 0, "opposed": 0, "undecided": 0}
    spread = _spread(published, column, corpus, runs)
    rows = []
    for row in published.rows:
        printed = published.printed(row.label, corpus, column)
        found = cell_figure(published, row, corpus, column, runs)
        if printed is not None and found is not None and column not in row.estimators:
            rows.append((printed, found))
    for (paper_a, ours_a), (paper_b, ours_b) in combinations(rows, 2):
        if paper_a == paper_b:
            continue
        gap = ours_a.value - ours_b.value
        error = math.hypot(doubt(ours_a, spread), doubt(ours_b, spread))
        if gap == 0 or abs(gap) <= ERRORS * error:
            count["undecided"] += 1
        else:
            count["alike" if (gap > 0) == (paper_a > paper_b) else "opposed"] += 1
    return Orderings(**count)


def show_number(value: float | None) -> str:
    """A number for a table: two decimals, fewer of a large one."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:z.2f}"
