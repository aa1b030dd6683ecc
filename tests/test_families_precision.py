"""How many digits the exponential families keep: float32, and the ends of their parameters."""

from __future__ import annotations

import math

import pytest
import torch
from family_cases import FAMILIES, close, every_family, few, naturals, scales, seeds, weights
from hypothesis import given
from torch import Tensor

from uncollapse.distributions.bessel import log_reduced_bessel, reduced_bessel_ratio
from uncollapse.distributions.families import Gaussian, Poisson, VonMisesFisherFamily


@every_family
@few
@given(seeds, scales)
def test_float32_is_as_accurate_as_it_can_be(name: str, seed: int, scale: float) -> None:
    family = FAMILIES[name]
    q, p = naturals(name, 2, 8, seed=seed, scale=scale, dtype=torch.float32)
    w = weights(3, 8, seed=seed).float()
    value = family.nearest(family.mean(q))

    def results(dtype: torch.dtype) -> list[Tensor]:
        a, b = q.to(dtype), p.to(dtype)
        exact = [family.kl(a, b), family.entropy(a), family.log_prob(value.to(dtype), a)]
        exact += [family.dispersion(w.to(dtype), b), family.weighted_variance(w.to(dtype), b)]
        return [*exact, family.mean(a), family.variance(a), family.expectation(a)]

    for found, expected in zip(results(torch.float32), results(torch.float64), strict=True):
        assert found.dtype == torch.float32
        assert close(found, expected, 4e-6, 1e-6)


def exact(name: str, q: list[float], p: list[float]) -> tuple[float, float, float]:
    """KL, dispersion of equal parts, and the largest number that a double would have to hold."""
    mpmath = pytest.importorskip("mpmath")
    mp, log, gamma, total = mpmath.mp, mpmath.log, mpmath.loggamma, mpmath.fsum

    def sphere(*n):
        square = total(x * x for x in n)
        return log(mpmath.hyp0f1(mpmath.mpf(len(n)) / 2, square / 4, maxterms=10**6))

    partition = {
        "gaussian": lambda a, b: -a * a / (4 * b) - log(-2 * b) / 2,
        "known-variance": lambda a: a * a / 2,
        "categorical": lambda *n: log(1 + total(map(mpmath.exp, n))),
        "bernoulli": lambda a: log(1 + mpmath.exp(a)),
        "poisson": mpmath.exp,
        "gamma": lambda a, b: gamma(a) - a * log(-b),
        "exponential": lambda a: -log(-a),
        "beta": lambda a, b: gamma(a) + gamma(b) - gamma(a + b),
        "dirichlet": lambda *n: total(map(gamma, n)) - gamma(total(n)),
        "sphere": sphere,
    }[name]
    with mpmath.workdps(60):
        start, end = [[mp.mpf(x) for x in point] for point in (q, p)]
        slope = [
            mpmath.diff(partition, tuple(start), tuple(int(i == j) for j in range(len(q))))
            for i in range(len(q))
        ]
        product = total((b - a) * s for a, b, s in zip(start, end, slope, strict=True))
        kl = partition(*end) - partition(*start) - product
        middle = partition(*[(a + b) / 2 for a, b in zip(start, end, strict=True)])
        dispersion = (partition(*start) + partition(*end)) / 2 - middle
        parts = [kl, partition(*end), partition(*start), product]
        if name in ("beta", "dirichlet"):  # in which A is a difference by itself
            parts += [gamma(total(start)), gamma(total(end))]
        return float(kl), float(dispersion), max(float(abs(part)) for part in parts)


SMALL, LARGE = 1e-3, 1e6
EXTREMES = [
    *[("gaussian", [m / v, -0.5 / v], [0.3 / u, -0.5 / u])
      for v in (1e-12, 1e-3, 1e6) for u in (1e-12, 1.0) for m in (0.3, 0.3 + 1e-7, -2.0)],
    ("known-variance", [1e6], [1e6 + 1e-3]),
    *[("bernoulli", [a], [b]) for a in (-200.0, 0.1, 200.0) for b in (-200.0, 199.0, 200.0)],
    *[("categorical", [a, 0.0, -a], [b, -200.0, 1.0])
      for a in (-200.0, 1.0, 200.0) for b in (-200.0, 200.0)],
    *[("poisson", [math.log(a)], [math.log(b)]) for a in (SMALL, LARGE) for b in (SMALL, 3, LARGE)],
    *[("exponential", [-a], [-b]) for a in (SMALL, LARGE) for b in (SMALL, 3.0, LARGE)],
    *[("gamma", [a, -b], [c, -1.0])
      for a in (SMALL, LARGE) for b in (SMALL, LARGE) for c in (SMALL, LARGE)],
    *[("beta", [a, b], [c, 1.0])
      for a in (SMALL, LARGE) for b in (SMALL, LARGE) for c in (SMALL, LARGE + 1)],
    *[("dirichlet", [a, b, 2.0], [c, 1.0, SMALL])
      for a in (SMALL, LARGE) for b in (SMALL, LARGE) for c in (SMALL, LARGE)],
    *[("sphere", [a, 0.0, 0.0, 0.0, 0.0], [b, b, 0.0, 0.0, 0.0])
      for a in (0.0, 1e-6, 2.0, 1e3) for b in (1e-6, 2.0, 900.0)],
]  # fmt: skip


@pytest.mark.parametrize(("name", "q", "p"), EXTREMES)
def test_kl_at_the_extremes(name: str, q: list[float], p: list[float]) -> None:
    """Right to the last digits of the largest number it is a difference of.

    A Gaussian's A is no such number: of 1e12 and more, nothing of the KL would be left. There
    the natural parameters' own rounding is all: of a mean, against a small deviation.
    """
    family = FAMILIES[name]
    start, end = torch.tensor(q, dtype=torch.float64), torch.tensor(p, dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    kl, dispersion, largest = exact(name, q, p)
    for found, expected in (
        (float(family.kl(start, end)), kl),
        (float(family.dispersion(half, torch.stack([start, end]))), dispersion),
    ):
        assert math.isfinite(found)
        assert found >= 0
        room = 1e-14 * largest + 1e-15
        if name == "gaussian":
            room = 1e-9 * expected + 1e-9
        elif name == "known-variance":
            room = 1e-9 * expected
        assert abs(found - expected) <= room


def test_densities_of_needles() -> None:
    family = Gaussian()
    natural = torch.tensor([0.3e12, -0.5e12], dtype=torch.float64)
    value = torch.tensor([0.3 + 2e-6], dtype=torch.float64)
    expected = -2 - 0.5 * math.log(2 * math.pi * 1e-12)
    assert float(family.log_prob(value, natural)) == pytest.approx(expected, rel=1e-9)
    entropy = 0.5 * math.log(2 * math.pi * math.e * 1e-12)
    assert float(family.entropy(natural)) == pytest.approx(entropy, rel=1e-12)


@pytest.mark.parametrize("rate", [1e-6, 0.3, 5.0, 49.9, 50.1, 400.0, 1e4])
def test_expected_log_factorials(rate: float) -> None:
    natural = torch.tensor([math.log(rate)], dtype=torch.float64).requires_grad_()
    found = -Poisson().expected_log_base(natural)
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(30):
        exact = mpmath.exp(mpmath.mpf(float(natural.detach())))
        low, high = int(max(0, rate - 15 * rate**0.5)), int(rate + 15 * rate**0.5 + 40)
        term = mpmath.exp(-exact + low * mpmath.log(exact) - mpmath.loggamma(low + 1))
        log_factorial, total, shifted = mpmath.loggamma(low + 1), mpmath.mpf(0), mpmath.mpf(0)
        for count in range(low, high):
            total += term * log_factorial
            shifted += term * mpmath.log(count + 1)  # of E ln(z + 1)! − ln z!, the derivative by λ
            term *= exact / (count + 1)
            log_factorial += mpmath.log(count + 1)
    # near 1e5 a double's last digit is 1.5e-11
    assert float(found.detach()) == pytest.approx(float(total), abs=1e-10, rel=1e-14)
    (slope,) = torch.autograd.grad(found, natural)
    assert float(slope) == pytest.approx(float(shifted) * rate, rel=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 32, 512])
def test_bessel_tensors_agree_with_arbitrary_precision(dim: int) -> None:
    mpmath = pytest.importorskip("mpmath")
    kappas = [1e-8, 1e-3, 0.3, 5.0, 40.0, 1e3, 1e4]
    kappa = torch.tensor(kappas, dtype=torch.float64, requires_grad=True)
    order = dim / 2 - 1
    value = log_reduced_bessel(order, kappa.square())
    (ratio,) = torch.autograd.grad(value.sum(), kappa, create_graph=True)
    (slope,) = torch.autograd.grad(ratio.sum(), kappa)
    value, ratio = value.detach(), ratio.detach()
    for i, x in enumerate(kappas):
        with mpmath.workdps(40):
            below, above = mpmath.besseli(order, x), mpmath.besseli(order + 1, x)
            log = (
                mpmath.log(below)
                + mpmath.loggamma(order + 1)
                + order * mpmath.log(2 / mpmath.mpf(x))
            )
            r = above / below
            rise = 1 - r * r - (dim - 1) * r / mpmath.mpf(x)
        assert float(value[i]) == pytest.approx(float(log), rel=1e-13)
        assert float(ratio[i]) == pytest.approx(float(r), rel=1e-14)
        assert float(slope[i]) == pytest.approx(float(rise), rel=1e-6 if x > 100 else 1e-11)
    zero = torch.zeros((), dtype=torch.float64)
    assert float(log_reduced_bessel(order, zero)) == 0
    assert float(reduced_bessel_ratio(order, zero)) == pytest.approx(1 / dim, rel=1e-15)


@pytest.mark.parametrize("dim", [2, 3, 32, 512])
def test_the_uniform_direction_is_nothing_special(dim: int) -> None:
    family = VonMisesFisherFamily(dim)
    natural = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
    hessian = torch.autograd.functional.hessian(lambda n: family.log_partition(n), natural)
    assert isinstance(hessian, Tensor)
    assert close(hessian, torch.eye(dim, dtype=torch.float64) / dim)
    assert float(family.expectation(natural).detach().abs().max()) == 0
    q = torch.full((dim,), 1e-5, dtype=torch.float64)
    assert float(family.kl(q, natural.detach())) == pytest.approx(0.5e-10, abs=1e-12)
