"""For every exponential family, two components over two numbers that say what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from uncollapse.distributions import families
from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.errors import unknown_name


@dataclass(frozen=True)
class Parameter:
    """An axis of a plane of components.

    Attributes
    ----------
    name : str
    low, high : float
        Where the axis begins and ends.
    logarithmic : bool
    """

    name: str
    low: float
    high: float
    logarithmic: bool = False

    def values(self, count: int) -> Tensor:
        """``(count,)`` float64, evenly spread over the axis, with both ends."""
        return self.at(torch.linspace(0, 1, count, dtype=torch.float64))

    def at(self, share: Tensor) -> Tensor:
        """The values at shares of the axis's length."""
        if self.logarithmic:
            return (math.log(self.low) + share * math.log(self.high / self.low)).exp()
        return self.low + share * (self.high - self.low)

    def share(self, value: Tensor) -> Tensor:
        """The inverse of `at`."""
        if self.logarithmic:
            return (value / self.low).log() / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Plane:
    """Two components of a family, over two numbers that say what they are.

    Attributes
    ----------
    family : ExponentialFamily
    x, y : Parameter
    naturals : callable
        Of coordinates x and y ``(...)``, natural parameters ``(..., 2, P)`` of both components.
    about : str
        What the two components are.
    collapse : tuple of float or None
        Where they are the same: a point; None for the diagonal.
    """

    family: ExponentialFamily
    x: Parameter
    y: Parameter
    naturals: Callable[[Tensor, Tensor], Tensor]
    about: str
    collapse: tuple[float, float] | None = None


def plane_of(kind: str) -> Plane:
    """The plane of a family.

    Raises
    ------
    UserError
        For an unknown family.
    """
    if kind not in PLANES:
        raise unknown_name("family", kind, PLANES)
    return PLANES[kind]()


def _each(
    family: ExponentialFamily,
    name: str,
    low: float,
    high: float,
    natural: Callable[[Tensor], Tensor],
    *,
    logarithmic: bool = False,
) -> Plane:
    """Either component anywhere; ``natural`` gives η of the usual parameter."""
    x, y = (
        Parameter(f"{name} of the {w} component", low, high, logarithmic)
        for w in ("first", "second")
    )
    return Plane(
        family, x, y,
        lambda a, b: natural(torch.stack([a, b], -1)).unsqueeze(-1),
        "either anywhere",
    )  # fmt: skip


def _other(
    family: ExponentialFamily,
    x: Parameter,
    y: Parameter,
    natural: Callable[[Tensor, Tensor], Tensor],
    fixed: tuple[float, float],
    about: str,
) -> Plane:
    """One component fixed, the other anywhere; ``natural`` gives η ``(..., P)``."""
    first, second = torch.tensor(fixed, dtype=torch.float64)
    still = natural(first, second)  # (P,)

    def naturals(a: Tensor, b: Tensor) -> Tensor:
        moving = natural(a, b)
        return torch.stack([still.expand_as(moving), moving], -2)

    return Plane(family, x, y, naturals, f"the first is {about}, the second anywhere", fixed)


def _line(family: ExponentialFamily, start: list[float], end: list[float], about: str) -> Plane:
    """Either component on the line from η = ``start`` (0) to ``end`` (1)."""
    ends = torch.tensor([start, end], dtype=torch.float64)

    def naturals(a: Tensor, b: Tensor) -> Tensor:
        share = torch.stack([a, b], -1).unsqueeze(-1)  # (..., 2, 1)
        return ends[0] + share * (ends[1] - ends[0])

    x, y = (Parameter(f"place of the {which} component", 0.0, 1.0) for which in ("first", "second"))
    return Plane(family, x, y, naturals, f"either on the line from {about}")


def _categorical() -> Plane:
    start, end = (
        [math.log(p / probabilities[-1]) for p in probabilities[:-1]]
        for probabilities in ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05))
    )
    return _line(families.Categorical(3), start, end, "(90, 5, 5) % to (5, 90, 5) %")


def _direction(angle: Tensor, kappa: Tensor) -> Tensor:
    radians = angle * (math.pi / 180)
    return torch.stack([kappa * radians.cos(), kappa * radians.sin(), 0 * kappa], -1)


PLANES: dict[str, Callable[[], Plane]] = {
    "gaussian": lambda: _other(
        families.Gaussian(),
        Parameter("mean of the second component", -4, 4),
        Parameter("standard deviation of the second component", 0.2, 5, True),
        lambda mean, deviation: families.Gaussian().natural(
            torch.stack([mean, 2 * deviation.log()], -1)
        ),
        (0.0, 1.0),
        "N(0, 1)",
    ),
    "known-variance-gaussian": lambda: _each(
        families.KnownVarianceGaussian(), "mean", -3, 3, lambda mean: mean
    ),
    "categorical": _categorical,
    "bernoulli": lambda: _each(families.Bernoulli(), "probability", 0.01, 0.99, torch.logit),
    "gamma": lambda: _other(
        families.Gamma(),
        Parameter("shape of the second component", 0.2, 20, True),
        Parameter("rate of the second component", 0.2, 20, True),
        lambda shape, rate: torch.stack([shape, -rate], -1),
        (2.0, 2.0),
        "of shape 2 and rate 2",
    ),
    "beta": lambda: _other(
        families.Beta(),
        Parameter("α of the second component", 0.2, 20, True),
        Parameter("β of the second component", 0.2, 20, True),
        lambda alpha, beta: torch.stack([alpha, beta], -1),
        (2.0, 2.0),
        "Beta(2, 2)",
    ),
    "exponential": lambda: _each(
        families.Exponential(), "rate", 0.1, 10, torch.neg, logarithmic=True
    ),
    "poisson": lambda: _each(families.Poisson(), "mean", 0.1, 10, torch.log, logarithmic=True),
    "dirichlet": lambda: _line(
        families.Dirichlet(3), [10.0, 1.0, 1.0], [1.0, 10.0, 1.0], "(10, 1, 1) to (1, 10, 1)"
    ),
    "von-mises-fisher": lambda: _other(
        families.VonMisesFisherFamily(3),
        Parameter("angle between the two directions (degrees)", -180, 180),
        Parameter("concentration κ of the second component", 0.5, 50, True),
        _direction,
        (0.0, 5.0),
        "of concentration 5",
    ),
}
