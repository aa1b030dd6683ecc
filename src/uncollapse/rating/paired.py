"""One-tailed paired t-tests of systems that answered the same contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class PairedTest:
    """Is one system rated higher than another?

    Attributes
    ----------
    criterion, system, baseline : str
    pairs : int
        Contexts (for consistency: sets of contexts) that both systems were rated on.
    difference : float or None
        Mean over pairs of the system's rating less the baseline's; a pair's is over raters.
    t : float or None
    df : int or None
        Degrees of freedom.
    p : float or None
        Probability of such a t, or a larger one, if the system is rated no higher.
    p_holm : float or None
        Corrected for all tests that were made together (Holm, 1979).
    reason : str
        Why there is no test, if there is none.
    """

    criterion: str
    system: str
    baseline: str
    pairs: int
    difference: float | None = None
    t: float | None = None
    df: int | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""


def paired_test(
    criterion: str, system: str, baseline: str, higher: np.ndarray, lower: np.ndarray
) -> PairedTest:
    """Test whether ``higher`` is above ``lower``, pair by pair, both ``(N,)``."""
    from scipy.stats import ttest_rel

    pairs = len(higher)
    if not pairs:
        return PairedTest(criterion, system, baseline, 0, reason="no pairs")
    differences = higher - lower
    mean = float(differences.mean())
    if pairs < 2:
        return PairedTest(criterion, system, baseline, pairs, mean, reason="fewer than 2 pairs")
    if np.ptp(differences) < 1e-12:  # means of ratings are equal up to rounding
        reason = "all differences are equal"
        return PairedTest(criterion, system, baseline, pairs, mean, reason=reason)
    found = ttest_rel(higher, lower, alternative="greater")
    t, p = float(found.statistic), float(found.pvalue)
    return PairedTest(criterion, system, baseline, pairs, mean, t, pairs - 1, p)


def holm_corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with p-values corrected for all of them that could be made."""
    known = sorted((test.p, place) for place, test in enumerate(tests) if test.p is not None)
    result = list(tests)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        result[place] = replace(tests[place], p_holm=largest)
    return result
