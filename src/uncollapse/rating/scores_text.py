"""The scores of a study as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uncollapse.rating.paired import PairedTest
    from uncollapse.rating.scoring import Agreement, Figures, Scores

DASH = "–"
SMALLEST_P = 0.0001


def scores_text(scores: Scores) -> str:
    """Everything, criterion by criterion."""
    raters = f"{scores.raters} of {scores.of_raters} raters"
    holes = f"{scores.holes:,} hole{'' if scores.holes == 1 else 's'}"
    first = f"{raters}; ratings 1 … {scores.scale}, {holes}"
    blocks = [first]
    for agreement in scores.agreement:
        name = agreement.criterion
        blocks.append(
            f"{name}  (Krippendorff's α {_alpha(agreement)}, {agreement.level})\n"
            + _figures([f for f in scores.figures if f.criterion == name], scores)
        )
        tests = [test for test in scores.tests if test.criterion == name]
        if tests:
            blocks.append(_tests(tests))
    blocks.append(
        "± is the standard error over contexts, the raters as given."
        + (" p is one-tailed; Holm corrects for all tests above." if scores.tests else "")
    )
    return "\n\n".join(blocks)


def _alpha(agreement: Agreement) -> str:
    if agreement.alpha is None:
        return f"{DASH}: {agreement.reason}"
    return _number(agreement.alpha, 3)


def _figures(figures: Sequence[Figures], scores: Scores) -> str:
    heading = ["system", "mean", "±", "variance", f"≥ {scores.accept}", f"≥ {scores.high}"]
    rows = [
        [
            one.system,
            _number(one.mean),
            _number(one.standard_error),
            _number(one.variance),
            _percent(one.accepted),
            _percent(one.high),
            f"{one.ratings:,}",
        ]
        for one in figures
    ]
    return _aligned([[*heading, "ratings"], *rows])


def _tests(tests: Sequence[PairedTest]) -> str:
    rows = [["is higher?", "difference", "t", "df", "p", "p (Holm)", "pairs"]]
    for test in tests:
        rows.append(
            [
                f"{test.system} > {test.baseline}",
                _number(test.difference, sign=True),
                _number(test.t),
                DASH if test.df is None else str(test.df),
                _probability(test.p),
                _probability(test.p_holm),
                f"{test.pairs:,}" + (f"  ({test.reason})" if test.reason else ""),
            ]
        )
    return _aligned(rows)


def _number(value: float | None, decimals: int = 2, *, sign: bool = False) -> str:
    if value is None:
        return DASH
    shown = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return shown.replace("-", "−")


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.0f} %"


def _probability(p: float | None) -> str:
    if p is None:
        return DASH
    return f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: names to the left, figures to the right, remarks as they come."""
    last = len(rows[0]) - 1
    # a remark in the last column must not push its figures away
    widths = [max(len(row[place].split("  (")[0]) for row in rows) for place in range(last + 1)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        for place in range(1, last + 1):
            figure, mark, remark = row[place].partition("  (")
            cells.append(figure.rjust(widths[place]) + mark + remark)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(f"  {line}" for line in lines)
