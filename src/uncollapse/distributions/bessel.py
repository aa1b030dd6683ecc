"""Modified Bessel functions of the first kind, in log space.

The von Mises–Fisher distribution needs them for orders and arguments in the thousands, where
I_ν(x) itself is no double any more. Both functions sum the power series

    Γ(ν + 1) (2/x)^ν I_ν(x) = Σ_k t_k,    t_k = (x²/4)^k / (k! (ν + 1) ⋯ (ν + k)),

whose terms are positive, outwards from the largest of them: nothing overflows, nothing
cancels, and only the terms about the peak count, some √x of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from sys import float_info


def log_reduced_bessel_i(order: float, x: float) -> float:
    """ln of Γ(ν + 1) (2/x)^ν I_ν(x), which is 1 at x = 0.

    With ν = D/2 − 1 this is ln E exp(x u₁) for u uniform on the unit sphere of D dimensions.
    ln I_ν(x) itself is this plus ν ln(x/2) − ln Γ(ν + 1).

    Parameters
    ----------
    order, x : float
        ν ≥ 0 and x > 0.
    """
    return _series(order, x)[0]


def bessel_i_ratio(order: float, x: float) -> float:
    """I_{ν+1}(x) / I_ν(x), between 0 and 1, for ν ≥ 0 and x > 0."""
    return _series(order, x)[1]


@lru_cache(maxsize=64)
def _series(order: float, x: float) -> tuple[float, float]:
    """The logarithm of the sum, and the ratio.

    The ratio is the derivative of the logarithm: 2/x times the mean of k when k has
    probability t_k / Σ t.
    """
    square = x * x / 4
    peak = math.floor(2 * square / (order + math.hypot(order, x)))  # where t_{k+1}/t_k passes 1
    log_peak = peak * math.log(square) if peak else 0.0
    log_peak -= math.lgamma(peak + 1) + math.lgamma(order + peak + 1) - math.lgamma(order + 1)
    rest = moment = 0.0  # Σ t_k without the peak, Σ (k − peak) t_k, both over t_peak
    # down to epsilon²: behind the last term there are as many as √x that are almost as large
    term, k = 1.0, peak
    while True:
        k += 1
        term *= square / (k * (order + k))
        rest += term
        moment += (k - peak) * term
        if term <= float_info.epsilon**2 * rest:
            break
    term, k = 1.0, peak
    while k > 0 and term > float_info.epsilon**2 * rest:
        term *= k * (order + k) / square
        k -= 1
        rest += term
        moment += (k - peak) * term
    # log1p: for a small x the logarithm is all in the rest
    return log_peak + math.log1p(rest), 2 / x * (peak + moment / (1 + rest))
