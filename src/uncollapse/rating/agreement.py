"""Krippendorff's α: how far raters agree, beyond what chance would have them agree.

From the coincidence matrix, as in Krippendorff (2011), "Computing Krippendorff's
Alpha-Reliability".
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from uncollapse.errors import unknown_name

Level = Literal["nominal", "ordinal", "interval", "ratio"]
LEVELS: tuple[str, ...] = get_args(Level)


def check_level(level: str) -> None:
    """Refuse a level of measurement that there is not.

    Raises
    ------
    UserError
    """
    if level not in LEVELS:
        raise unknown_name("level of measurement", level, LEVELS)


def krippendorff_alpha(ratings: np.ndarray, level: Level = "ordinal") -> float | None:
    """Agreement of several raters on several units.

    Parameters
    ----------
    ratings : ndarray
        ``(R, U)`` float: rating of each of R raters for each of U units; NaN where there is none.
    level : {"nominal", "ordinal", "interval", "ratio"}
        How far apart two ratings are: different or not, by the ratings between them, by their
        difference, or by their difference relative to their sum.

    Returns
    -------
    float or None
        1 for perfect agreement, 0 for that of chance, below 0 for worse. None where it is not
        defined: no unit has two ratings, or all ratings of such units are equal.

    Raises
    ------
    UserError
        For an unknown level.
    """
    check_level(level)
    given = ratings[~np.isnan(ratings)]
    values = np.unique(given)  # (V,), in order
    counts = (ratings[:, :, None] == values).sum(0).astype(float)  # (U, V)
    counts = counts[counts.sum(1) >= 2]  # what stands alone cannot be compared
    raters = counts.sum(1)  # (U,)
    pairs = counts[:, :, None] * counts[:, None, :]  # (U, V, V)
    pairs -= counts[:, :, None] * np.eye(len(values))  # no rating is compared with itself
    coincidences = (pairs / (raters - 1)[:, None, None]).sum(0)  # (V, V)
    totals = coincidences.sum(1)  # (V,)
    distances = _distances(values, totals, level)
    expected = (np.outer(totals, totals) * distances).sum()
    if not expected > 0:
        return None
    return float(1 - (totals.sum() - 1) * (coincidences * distances).sum() / expected)


def _distances(values: np.ndarray, totals: np.ndarray, level: Level) -> np.ndarray:
    """Squared distances ``(V, V)`` of values that occur ``totals`` times."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    difference = values[:, None] - values[None, :]
    if level == "interval":
        return difference**2
    if level == "ratio":
        sums = np.abs(values[:, None] + values[None, :])
        return (difference / np.where(sums > 0, sums, 1)) ** 2
    # ratings up to the middle of one value's, less those up to the middle of the other's
    ranks = totals.cumsum() - totals / 2
    return (ranks[:, None] - ranks[None, :]) ** 2
