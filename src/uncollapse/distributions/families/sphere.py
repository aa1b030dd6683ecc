"""The von Mises–Fisher family: directions with any concentration."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.bessel import log_reduced_bessel, reduced_bessel_ratio
from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.distributions.families.free import bounded
from uncollapse.distributions.von_mises_fisher import (
    Propose,
    VonMisesFisher,
    about_first_axis,
    check_sphere,
    judged,
    log_sphere_area,
    turn,
)

# κ up to the first stays as it is and never passes the second
LARGE_KAPPA, LARGEST_KAPPA = 5e3, 1e4
# how many deviations of the angle, and how many points, an integral over its tail takes
DEVIATIONS = 12
NODES = 64
# of a series whose terms halve
TERMS = 50


class VonMisesFisherFamily(ExponentialFamily):
    """η = κμ, t(z) = z on the unit sphere of D dimensions, A(η) = ln ∫ exp(ηᵀz) dz.

    One unit is a direction of D numbers, κ = ‖η‖ its concentration, and η = 0 uniform.
    Densities are with respect to the surface measure. All that follows from A is a smooth
    function of κ², so that nothing special happens at 0.

    References
    ----------
    Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders"; Wood 1994, "Simulation
    of the von Mises Fisher distribution", for the sampler; Figurnov et al. 2018, "Implicit
    Reparameterization Gradients".

    Parameters
    ----------
    dim : int
        D ≥ 2.

    Raises
    ------
    UserError
        If D < 2.
    """

    def __init__(self, dim: int) -> None:
        check_sphere(dim)
        self.parameters = dim
        self.width = dim
        self.order = dim / 2 - 1  # of the Bessel function in A

    def log_partition(self, natural: Tensor) -> Tensor:
        """ln of the sphere's area and of E exp(ηᵀu) for u uniform on it, ``(...)``."""
        reduced = log_reduced_bessel(self.order, _square(natural))
        return (reduced + log_sphere_area(self.width)).to(natural.dtype)

    def expectation(self, natural: Tensor) -> Tensor:
        """E z = I_{D/2}(κ)/I_{D/2−1}(κ) · μ."""
        ratio = reduced_bessel_ratio(self.order, _square(natural))
        return ratio.unsqueeze(-1).to(natural.dtype) * natural

    def statistics(self, value: Tensor) -> Tensor:
        """The direction itself."""
        return value

    def mean(self, natural: Tensor) -> Tensor:
        """E z, inside the sphere."""
        return self.expectation(natural)

    def variance(self, natural: Tensor) -> Tensor:
        """The diagonal of ∇²A, ``(..., D)``."""
        square = _square(natural)
        ratio = reduced_bessel_ratio(self.order, square)
        slope = ratio * (ratio - reduced_bessel_ratio(self.order + 1, square))
        wide = ratio.unsqueeze(-1) - slope.unsqueeze(-1) * natural.double().square()
        return wide.to(natural.dtype)

    def natural(self, free: Tensor) -> Tensor:
        """The vector itself, shortened where κ would be too large to sample from."""
        # not below LARGE_KAPPA, where the factor is 1: the root has no gradient at 0
        length = free.square().sum(-1, keepdim=True).clamp(min=LARGE_KAPPA**2).sqrt()
        return free * (bounded(length, LARGE_KAPPA, LARGEST_KAPPA) / length)

    def feasible(self, natural: Tensor) -> Tensor:
        """Any finite vector."""
        return natural.isfinite().all(-1)

    def rsample(self, natural: Tensor) -> Tensor:
        """Draw ``(..., D)`` with gradients, through the direction and through κ."""
        wide = natural.double().reshape(-1, self.width)  # (n, D)
        kappa, direction = self._polar(wide.detach())
        half = torch.full((), (self.width - 1) / 2, dtype=wide.dtype, device=wide.device)
        beta = torch.distributions.Beta(half, half, validate_args=False)

        def propose(n: int) -> tuple[Tensor, Tensor]:
            return beta.sample((n,)), torch.rand(n, dtype=wide.dtype, device=wide.device)

        with torch.no_grad():
            angle = _angles(self.width, kappa, propose)
            normal = torch.randn(len(wide), self.width - 1, dtype=wide.dtype, device=wide.device)
            draw = turn(_at_angle(angle, normal), direction)
            onward = turn(_at_angle(angle + math.pi / 2, normal), direction)  # dz/dθ
            turning = onward * self._angle_by_kappa(angle, kappa)[:, None]
        # the movement of a draw while η changes, which is 0 and has gradients
        change = wide - wide.detach()
        along = (direction * change).sum(-1, keepdim=True)
        movement = self._sideways(draw, angle.cos(), kappa, direction, change - along * direction)
        return (draw + movement + along * turning).to(natural.dtype).view_as(natural)

    def simulate(self, natural: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw ``(..., D)``."""
        kappa, direction = self._polar(torch.tensor(natural).reshape(-1, self.width))
        half = (self.width - 1) / 2

        def propose(n: int) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(random.beta(half, half, n)), torch.from_numpy(random.random(n))

        angle = _angles(self.width, kappa, propose)
        normal = torch.from_numpy(random.standard_normal((len(kappa), self.width - 1)))
        return turn(_at_angle(angle, normal), direction).numpy().reshape(natural.shape)

    def nearest(self, value: Tensor) -> Tensor:
        """The value's direction; the first axis where it is 0."""
        return self._polar(value)[1]

    def of(self, posterior: Distribution) -> Tensor:
        """Natural parameters ``(..., 1, D)`` float64 of a von Mises–Fisher distribution."""
        if not isinstance(posterior, VonMisesFisher):
            return super().of(posterior)
        return (posterior.kappa * posterior.direction.double()).unsqueeze(-2)

    @staticmethod
    def _polar(vector: Tensor) -> tuple[Tensor, Tensor]:
        """Length ``(...)`` and direction ``(..., D)``, the first axis at 0."""
        # by the largest number first: squares of small ones would be 0
        scale = vector.detach().abs().amax(-1, keepdim=True)
        first = torch.zeros_like(vector)
        first[..., 0] = 1
        scaled = torch.where(scale > 0, vector / scale.where(scale > 0, 1), first)
        length = scaled.square().sum(-1, keepdim=True).sqrt()
        return (length * scale).squeeze(-1), scaled / length

    def _sideways(
        self, draw: Tensor, cosine: Tensor, kappa: Tensor, direction: Tensor, change: Tensor
    ) -> Tensor:
        """dz of draws ``(n, D)`` where η changes by ``change`` at right angles to itself.

        A rotation of everything does it, a/κ for a change of length a. Where κ is small,
        almost nothing has to move: there it is a movement f(cos) · (change along the sphere).
        That it carries density as it should, div(p v) = −(z · change) p, leaves for f
        cos · f' + (D − 1 + κ cos) f = 1, whence f = ₁F₁(1; D; −κ cos) / (D − 1).
        """
        limit = (self.width - 1) / 2
        lean = (draw * change).sum(-1, keepdim=True)
        rotated = cosine[:, None] * change - lean * direction
        rotated = rotated / kappa.clamp(min=limit)[:, None]
        argument = (-kappa.clamp(max=limit) * cosine)[:, None]
        term = torch.full_like(argument, 1 / (self.width - 1))
        factor = term
        for n in range(TERMS):
            term = term * argument / (self.width + n)  # at most half the one before
            factor = factor + term
        return torch.where(kappa[:, None] < limit, factor * (change - lean * draw), rotated)

    def _angle_by_kappa(self, angle: Tensor, kappa: Tensor) -> Tensor:
        """dθ/dκ = −∂F/∂κ / p(θ), F and p of the angle θ between z and the direction, ``(n,)``.

        p(t) ∝ exp(κ cos t) sin(t)^{D−2}, whence ∂F/∂κ = ∫₀^θ (cos t − E cos) p(t) dt. The
        integral over all angles is 0, so that the tail beyond θ, on whichever side, will do.
        """
        cosine = kappa * reduced_bessel_ratio(self.order, kappa.square())  # E cos, (n,)
        right = angle.cos() < cosine
        deviation = (kappa * cosine + (self.width - 2)).clamp(min=1e-12).rsqrt()
        room = torch.where(right, math.pi - angle, angle)
        reach = torch.minimum(room, DEVIATIONS * deviation)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        share = torch.as_tensor((nodes + 1) / 2).to(angle)
        away = torch.where(right, reach, -reach)[:, None] * share  # t − θ, (n, nodes)
        t = angle[:, None] + away
        # ln p(t)/p(θ), the difference of the cosines without that of two almost equal numbers
        log_ratio = -2 * kappa[:, None] * ((t + angle[:, None]) / 2).sin() * (away / 2).sin()
        if self.width > 2:
            log_ratio = log_ratio + (self.width - 2) * (t.sin() / angle.sin()[:, None]).log()
        excess = t.cos() - cosine[:, None]
        tail = (excess * log_ratio.exp()) @ torch.as_tensor(weights / 2).to(angle) * reach
        return torch.where(right, tail, -tail)


def _square(natural: Tensor) -> Tensor:
    return natural.double().square().sum(-1)


def _angles(dim: int, kappa: Tensor, propose: Propose) -> Tensor:
    """Draw one angle between z and the direction for each κ ``(n,)`` ≥ 0, float64, not 0 or π.

    Where a κ's proposal is refused, it gets another.
    """
    depth = torch.empty_like(kappa)
    missing = torch.arange(len(kappa), device=kappa.device)
    while len(missing):
        proposed, keep = judged(dim, kappa[missing], *propose(len(missing)))
        depth[missing[keep]] = proposed[keep]
        missing = missing[~keep]
    # where the sine is 0, the density of angles is, and gradients divide by it
    return (2 * (depth / 2).sqrt().clamp(max=1).asin()).clamp(1e-150, math.pi - 1e-7)


def _at_angle(angle: Tensor, normal: Tensor) -> Tensor:
    """Unit vectors ``(n, D)`` at angles ``(n,)`` from the first axis."""
    return about_first_axis(angle.cos(), angle.sin(), normal)
