"""Modified Bessel functions of the first kind, in log space.

The von Mises–Fisher distribution needs them for orders and arguments in the thousands, where
I_ν(x) itself is no double any more. Both functions sum the power series

    Γ(ν + 1) (2/x)^ν I_ν(x) = Σ_k t_k,    t_k = (x²/4)^k / (k! (ν + 1) ⋯ (ν + k)),

whose terms are positive, outwards from the largest of them: nothing overflows, nothing
cancels, and only the terms about the peak count, some √x of them.

For tensors there are two functions of x² instead, which are smooth where x = 0 and
differentiable as often as one likes. They go down from an order that is large enough for the
uniform expansion.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from sys import float_info
from typing import Any

import torch
from torch import Tensor

# where the uniform expansion is exact to the last digits: the least order, and its terms
LEAST_ORDER = 20
TERMS = 12


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


def log_reduced_bessel(order: float, square: Tensor) -> Tensor:
    """ln of Γ(ν + 1) (2/x)^ν I_ν(x) of x² ``(...)``, float64 with gradients of any degree.

    Parameters
    ----------
    order : float
        ν ≥ 0.
    square : Tensor
        x² ≥ 0, ``(...)`` float64.
    """
    return _LogReducedBessel.apply(square, order)  # pyright: ignore[reportReturnType]


def reduced_bessel_ratio(order: float, square: Tensor) -> Tensor:
    """I_{ν+1}(x) / (x I_ν(x)) of x² ``(...)``, 1/(2ν + 2) at 0; parameters as above."""
    return _ReducedBesselRatio.apply(square, order)  # pyright: ignore[reportReturnType]


class _LogReducedBessel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, square: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(square)
        ctx.order = order
        return _downward(order, square)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (square,) = ctx.saved_tensors
        return gradients[0] * reduced_bessel_ratio(ctx.order, square) / 2, None


class _ReducedBesselRatio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, square: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(square)
        ctx.order = order
        return _downward(order, square)[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (square,) = ctx.saved_tensors
        ratio = reduced_bessel_ratio(ctx.order, square)
        # r' = 1 − r² − (2ν + 1) r/x for r = I_{ν+1}/I_ν, written in r/x of two orders
        above = reduced_bessel_ratio(ctx.order + 1, square)
        return gradients[0] * ratio * (above - ratio) / 2, None


def _downward(order: float, square: Tensor) -> tuple[Tensor, Tensor]:
    """Both functions of x², from those of a large order by I_{ν−1} − I_{ν+1} = 2ν/x · I_ν.

    All terms are positive, so that no digits are lost.
    """
    steps = max(0, math.ceil(LEAST_ORDER - order))
    log_reduced, ratio = _uniform(order + steps, square)
    for above in range(steps, 0, -1):
        double = 2 * (order + above)
        log_reduced = log_reduced + torch.log1p(square * ratio / double)
        ratio = 1 / (double + square * ratio)
    return log_reduced, ratio


def _uniform(order: float, square: Tensor) -> tuple[Tensor, Tensor]:
    """Both functions of x² by the uniform expansion of I_ν for a large ν.

    Olver 1974, "Asymptotics and Special Functions", chapter 10, section 7; NIST Digital
    Library of Mathematical Functions, 10.41.3. Γ(ν + 1) is left to the same series at x = 0,
    that is p = 1, so that what is small keeps its digits.
    """
    at_one, quotients = _series_in_p(order)
    q = (1 + square / order**2).sqrt()
    p, rise = 1 / q, square / order**2 / (1 + q)  # q − 1
    quotient, slope = torch.zeros_like(p), torch.zeros_like(p)
    for coefficient in reversed(quotients):  # Horner's scheme, and that of the derivative
        slope = slope * p + quotient
        quotient = quotient * p + coefficient
    change = -rise * p * quotient  # of the series since p = 1
    log_reduced = order * (rise - torch.log1p(rise / 2)) - torch.log1p(rise) / 2
    log_reduced = log_reduced + torch.log1p(change / at_one)
    slope = (quotient - rise * p * slope) / (at_one + change)
    return log_reduced, 1 / (order * (1 + q)) - (p.square() / 2 + p**3 * slope) / order**2


@lru_cache(maxsize=64)
def _series_in_p(order: float) -> tuple[float, tuple[float, ...]]:
    """S(1) of S(p) = Σ_k U_k(p) / ν^k, and the coefficients of (S(p) − S(1)) / (p − 1).

    A polynomial in p, the lowest power first.
    """
    term, total = [Fraction(1)], [Fraction(0)] * (3 * TERMS + 1)
    for k in range(TERMS + 1):
        for power, coefficient in enumerate(term):
            total[power] += coefficient / Fraction(order) ** k
        # U_{k+1} = ½ p² (1 − p²) U_k' + ⅛ ∫₀^p (1 − 5t²) U_k(t) dt
        following = [Fraction(0)] * (len(term) + 3)
        for power, coefficient in enumerate(term):
            following[power + 1] += coefficient * (Fraction(power, 2) + Fraction(1, 8 * power + 8))
            following[power + 3] -= coefficient * (Fraction(power, 2) + Fraction(5, 8 * power + 24))
        term = following
    sums = list(accumulate(reversed(total)))  # of the highest coefficients: synthetic division
    return float(sums[-1]), tuple(float(value) for value in reversed(sums[:-1]))
