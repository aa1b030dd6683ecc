"""What filled-in sheets say of the systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uncollapse.errors import UserError, unknown_name
from uncollapse.rating.agreement import Level, check_level, krippendorff_alpha
from uncollapse.rating.criteria import about
from uncollapse.rating.key import Key, read_key
from uncollapse.rating.paired import PairedTest, holm_corrected, paired_test
from uncollapse.rating.scores_text import scores_text
from uncollapse.rating.sheet import Sheet, read_sheet


@dataclass(frozen=True)
class Figures:
    """How people rated a system by a criterion; None where there are too few ratings.

    Attributes
    ----------
    system, criterion : str
    ratings : int
        Of all raters on all items.
    mean : float or None
    variance : float or None
        Of the ratings, with n − 1.
    standard_error : float or None
        Of the mean, over contexts: ratings of the same context are not independent. The
        raters are taken as given.
    accepted, high : float or None
        Shares of ratings that are at least so high.
    """

    system: str
    criterion: str
    ratings: int
    mean: float | None = None
    variance: float | None = None
    standard_error: float | None = None
    accepted: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's α over all items that have a criterion; None with a reason."""

    criterion: str
    alpha: float | None
    level: str
    items: int
    reason: str = ""


@dataclass(frozen=True)
class Scores:
    """All that a study comes to.

    Attributes
    ----------
    sheets : list of str
        The sheets that were counted.
    raters, of_raters : int
        How many there are, and how many the study was made for.
    scale, accept, high, holes : int
    baseline : str or None
    figures : list of Figures
        Of every criterion, every system.
    agreement : list of Agreement
        Of every criterion.
    tests : list of PairedTest
    """

    sheets: list[str]
    raters: int
    of_raters: int
    scale: int
    accept: int
    high: int
    holes: int
    baseline: str | None
    figures: list[Figures]
    agreement: list[Agreement]
    tests: list[PairedTest]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)

    def to_text(self) -> str:
        """Tables for people."""
        return scores_text(self)


def score(
    key: str | Path,
    sheets: Sequence[str | Path],
    *,
    accept: int | None = None,
    high: int | None = None,
    baseline: str | Path | None = None,
    level: Level = "ordinal",
    allow_holes: bool = False,
) -> Scores:
    """Count what raters have said.

    Parameters
    ----------
    key : path
        The folder that `export` made, or its ``key.json``.
    sheets : sequence of path
        One of each rater who has answered.
    accept, high : int, optional
        From which rating on a response is accepted, and is of high quality; by default the
        middle of the scale (2 of 3) and its end.
    baseline : str or path, optional
        Test every other system against this one; by default, every system against every other.
    level : {"ordinal", "nominal", "interval", "ratio"}
        As what α takes the ratings.
    allow_holes : bool
        Take sheets in which ratings are missing.

    Raises
    ------
    UserError
        For a key or a sheet with a fault, naming file and line; two sheets of one rater; a
        system or a level that there is not; a threshold beyond the scale.
    """
    known = read_key(Path(key))
    if not sheets:
        raise UserError("there is no sheet to score")
    accept = _threshold("accept", accept, (known.scale + 2) // 2, known.scale)
    high = _threshold("high", high, known.scale, known.scale)
    if accept > high:
        raise UserError(f"accept, {accept}, must not be above high, {high}")
    check_level(level)
    name = None if baseline is None else _system(known, str(baseline))
    read = _read_all(known, [Path(sheet) for sheet in sheets], allow_holes)
    # (R, I, C): what each rater says of each item by each criterion
    ratings = np.array([sheet.ratings for sheet in read], dtype=float)
    figures: list[Figures] = []
    agreement: list[Agreement] = []
    tests: list[PairedTest] = []
    for place, criterion in enumerate(known.criteria):
        found = {
            system: _by_unit(known, system, criterion, ratings[..., place])
            for system in known.systems
        }
        figures += [_figures(s, criterion, units, accept, high) for s, units in found.items()]
        agreement.append(_agreement(known, criterion, ratings[..., place], level))
        for system, other in _comparisons(known, name):
            tests.append(_test(criterion, system, other, found))
    return Scores(
        sheets=[str(sheet.path) for sheet in read],
        raters=len(read),
        of_raters=len(known.sheets),
        scale=known.scale,
        accept=accept,
        high=high,
        holes=sum(sheet.holes for sheet in read),
        baseline=name,
        figures=figures,
        agreement=agreement,
        tests=holm_corrected(tests),
    )


def _threshold(name: str, given: int | None, default: int, scale: int) -> int:
    if given is not None and not 1 <= given <= scale:
        raise UserError(f"{name} must be 1 … {scale}, the scale of the study, not {given}")
    return default if given is None else given


def _system(key: Key, given: str) -> str:
    """The system of that name, or of that run folder."""
    if given in key.systems:
        return given
    place = Path(given).resolve()
    for name, folder in key.systems.items():
        if folder and Path(folder).resolve() == place:
            return name
    raise unknown_name("system", given, key.systems)


def _read_all(key: Key, paths: Sequence[Path], allow_holes: bool) -> list[Sheet]:
    read: dict[int, Sheet] = {}
    for path in paths:
        sheet = read_sheet(path, key, allow_holes=allow_holes)
        if sheet.rater in read:
            both = f"{read[sheet.rater].path} and {path}"
            raise UserError(f"{both} are both sheets of rater {sheet.rater + 1}")
        read[sheet.rater] = sheet
    return [read[rater] for rater in sorted(read)]


def _by_unit(key: Key, system: str, criterion: str, ratings: np.ndarray) -> dict[int, np.ndarray]:
    """All ratings ``(R, I)`` of a system, by the unit that they are of."""
    units: dict[int, list[int]] = {}
    for number, item in enumerate(key.items):
        if item.system == system and item.kind == about(criterion):
            units.setdefault(item.unit, []).append(number)
    given = {unit: ratings[:, numbers].ravel() for unit, numbers in units.items()}
    known = {unit: values[~np.isnan(values)] for unit, values in given.items()}
    return {unit: values for unit, values in known.items() if len(values)}


def _figures(
    system: str, criterion: str, units: dict[int, np.ndarray], accept: int, high: int
) -> Figures:
    if not units:
        return Figures(system, criterion, 0)
    values = np.concatenate(list(units.values()))
    mean = float(values.mean())
    error = None
    if len(units) > 1:
        # sums of residuals, for with holes contexts have different numbers of ratings
        residuals = np.array([(ratings - mean).sum() for ratings in units.values()])
        spread = (residuals**2).sum() * len(units) / (len(units) - 1)
        error = math.sqrt(spread) / len(values)
    return Figures(
        system,
        criterion,
        len(values),
        mean,
        float(values.var(ddof=1)) if len(values) > 1 else None,
        error,
        float((values >= accept).mean()),
        float((values >= high).mean()),
    )


def _agreement(key: Key, criterion: str, ratings: np.ndarray, level: Level) -> Agreement:
    asked = [item.kind == about(criterion) for item in key.items]
    chosen = ratings[:, asked]  # (R, items of this criterion)
    alpha = krippendorff_alpha(chosen, level)
    rated = ~np.isnan(chosen)
    items = int((rated.sum(0) >= 2).sum())
    reason = ""
    if alpha is None:
        reason = "all ratings are equal" if items else "no item has two ratings"
    return Agreement(criterion, alpha, level, items, reason)


def _comparisons(key: Key, baseline: str | None) -> list[tuple[str, str]]:
    return [
        (system, other)
        for other in key.systems
        for system in key.systems
        if system != other and baseline in (None, other)
    ]


def _test(
    criterion: str, system: str, other: str, found: dict[str, dict[int, np.ndarray]]
) -> PairedTest:
    """Pairs are the units that both have ratings of, each the mean over raters."""
    one, two = found[system], found[other]
    units = [unit for unit in one if unit in two]
    higher = np.array([one[unit].mean() for unit in units])
    lower = np.array([two[unit].mean() for unit in units])
    return paired_test(criterion, system, other, higher, lower)
