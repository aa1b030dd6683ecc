"""The von Mises–Fisher distribution: a bell on the unit sphere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta

from uncollapse.distributions.base import Distribution, aligned
from uncollapse.distributions.bessel import bessel_i_ratio, log_reduced_bessel_i
from uncollapse.distributions.gaussian import standard_normal
from uncollapse.errors import UserError

# how many proposals ε, and as many uniform numbers to judge them by, both ``(n,)`` float64
Propose = Callable[[int], tuple[Tensor, Tensor]]


@dataclass
class VonMisesFisher(Distribution):
    """q(z) ∝ exp(κ·directionᵀz) on the sphere S^{D−1}, with one fixed κ for all.

    Densities are with respect to the surface measure of the sphere. As κ is fixed, the angle
    between z and the direction has the same distribution everywhere, and gradients flow
    through the direction alone.

    References
    ----------
    Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders", section 3.2 and
    appendix B; Wood 1994, "Simulation of the von Mises Fisher distribution", for the sampler;
    Xu and Durrett 2018, "Spherical Latent Spaces for Stable Variational Autoencoders", for a
    fixed κ.

    Parameters
    ----------
    direction : Tensor
        ``(..., D)`` of length 1, D ≥ 2.
    kappa : float
        Concentration κ > 0.
    """

    direction: Tensor
    kappa: float

    @property
    def dim(self) -> int:
        """D."""
        return self.direction.shape[-1]

    @property
    def mean(self) -> Tensor:
        """E z, ``(..., D)``: inside the sphere, I_{D/2}(κ)/I_{D/2−1}(κ) along the direction."""
        return bessel_i_ratio(self.dim / 2 - 1, self.kappa) * self.direction

    def rsample(self) -> Tensor:
        """Draw one reparameterised sample, ``(..., D)``."""
        device = self.direction.device
        if device.type == "mps":  # it knows neither float64 nor gamma variates
            device = torch.device("cpu")
        half = torch.full((), (self.dim - 1) / 2, dtype=torch.float64, device=device)
        beta = Beta(half, half, validate_args=False)

        def propose(n: int) -> tuple[Tensor, Tensor]:
            return beta.sample((n,)), torch.rand(n, dtype=half.dtype, device=device)

        count = self.direction.numel() // self.dim
        depth = _depths(self.dim, self.kappa, count, propose)
        normal = torch.randn(count, self.dim - 1, dtype=half.dtype, device=device)
        noise = _at_depth(depth, normal).to(self.direction.dtype)
        return turn(noise.to(self.direction.device).view_as(self.direction), self.direction)

    def draw(self, streams: Sequence[np.random.Generator], samples: int) -> Tensor:
        """Draw ``(B, S, D)`` float64 of a batch ``(B,)``; row i depends on ``streams[i]`` alone."""
        half = (self.dim - 1) / 2

        def propose(stream: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(stream.beta(half, half, n)), torch.from_numpy(stream.random(n))

        first = [propose(stream, _proposals(samples)) for stream in streams]
        epsilon, uniform = (torch.stack(column) for column in zip(*first, strict=True))  # (B, n)
        depths, keep = judged(self.dim, torch.full_like(epsilon, self.kappa), epsilon, uniform)
        rows = []
        for stream, depth, kept in zip(streams, depths, keep, strict=True):
            accepted = depth[kept]
            if len(accepted) < samples:  # rare
                missing = samples - len(accepted)
                more = _depths(self.dim, self.kappa, missing, partial(propose, stream))
                accepted = torch.cat([accepted, more])
            rows.append(accepted[:samples])
        normal = standard_normal(streams, samples, self.dim - 1)  # (B, S, D - 1)
        direction = self.direction.detach().double()[:, None]
        return turn(_at_depth(torch.stack(rows), normal).to(direction.device), direction)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of unit vectors z ``(..., D)`` or, for a batch ``(B,)``, ``(B, S, D)``."""
        cosine = (z * aligned(self.direction, z)).sum(-1)
        return self.kappa * cosine - self._log_normaliser()

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log q(z_i|x_j) of z ``(M, D)``, ``(M, N)`` float64, nothing left out."""
        return self.kappa * z.double() @ self.direction.double().t() - self._log_normaliser()

    def kl_uniform(self) -> Tensor:
        """KL from the uniform distribution on the sphere, ``(..., 1)``, nats: a constant.

        The formula of Guu et al. 2018 is this one for D + 2 dimensions, hence lower: 2.08
        instead of 2.17 at κ = 13, D = 32.
        """
        return self.direction.new_full((*self.direction.shape[:-1], 1), self._kl_uniform())

    def entropy(self) -> Tensor:
        """Differential entropy on the sphere, ``(...)``, nats: a constant."""
        entropy = log_sphere_area(self.dim) - self._kl_uniform()
        return self.direction.new_full(self.direction.shape[:-1], entropy)

    def map(self, change: Callable[[Tensor], Tensor]) -> VonMisesFisher:
        """The same with ``change`` applied to the direction."""
        return VonMisesFisher(change(self.direction), self.kappa)

    def _log_normaliser(self) -> float:
        return log_sphere_area(self.dim) + log_reduced_bessel_i(self.dim / 2 - 1, self.kappa)

    def _kl_uniform(self) -> float:
        # the sphere's area, in both densities, is never added: a small KL keeps its digits
        order = self.dim / 2 - 1
        return self.kappa * bessel_i_ratio(order, self.kappa) - log_reduced_bessel_i(
            order, self.kappa
        )


def _depths(dim: int, kappa: float, count: int, propose: Propose) -> Tensor:
    """Draw ``count`` independent values of 1 − w, w the cosine between z and the direction.

    As all are of one κ, whichever proposals are accepted will do.
    """
    accepted = []
    missing = count
    while True:
        epsilon, uniform = propose(_proposals(missing))
        depth, keep = judged(dim, torch.full_like(epsilon, kappa), epsilon, uniform)
        accepted.append(depth[keep])
        missing -= len(accepted[-1])
        if missing <= 0:
            return torch.cat(accepted)[:count]


def _proposals(missing: int) -> int:
    """So many that a second round is rare."""
    return 2 * missing + 16


def judged(dim: int, kappa: Tensor, epsilon: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Wood's proposals of 1 − w, one for each κ ``(...)`` ≥ 0, and which are accepted, ``(...)``.

    With ε ~ Beta((D − 1)/2, (D − 1)/2) and uniform numbers, 0.65 of them are or more, whatever
    D and κ. Written in 1 − w, which for a large κ has digits that w has lost.
    """
    b = (dim - 1) / (2 * kappa + torch.hypot(2 * kappa, torch.full_like(kappa, dim - 1)))
    mode = 2 * b / (1 + b)  # 1 − w where the envelope touches the density
    depth = 2 * b * epsilon / (1 - (1 - b) * epsilon)
    log_ratio = torch.log((mode + (1 - mode) * depth) / (mode * (2 - mode)))
    return depth, kappa * (mode - depth) + (dim - 1) * log_ratio >= torch.log(uniform)


def about_first_axis(cosine: Tensor, sine: Tensor, normal: Tensor) -> Tensor:
    """Unit vectors ``(..., D)`` at angles ``(...)`` from the first axis; noise ``(..., D − 1)``."""
    tangent = torch.nn.functional.normalize(normal, dim=-1)
    return torch.cat([cosine[..., None], sine[..., None] * tangent], -1)


def _at_depth(depth: Tensor, normal: Tensor) -> Tensor:
    """Samples about the first axis, ``(..., D)``, from 1 − w."""
    return about_first_axis(1 - depth, (depth * (2 - depth)).sqrt(), normal)


def turn(noise: Tensor, direction: Tensor) -> Tensor:
    """The isometry that carries the first axis to ``direction`` ``(..., D)``, applied to noise.

    A Householder reflection, of the axis to the direction or to its opposite, whichever is
    further: between near vectors the plane of reflection, and the gradient, would be noise.
    """
    first = direction[..., :1]
    sign = torch.ones_like(first).copysign(first.detach())
    axis = torch.cat([first + sign, direction[..., 1:]], -1)  # (..., D), of length ≥ √2
    # the length as computed, not 2 + 2|first|: the samples are unit vectors to the last digit
    share = 2 * (axis * noise).sum(-1, keepdim=True) / axis.square().sum(-1, keepdim=True)
    return sign * (share * axis - noise)


def log_sphere_area(dim: int) -> float:
    """ln of the area of the unit sphere S^{D−1} in D dimensions."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def check_sphere(dim: int) -> None:
    """Refuse a dimension in which the unit sphere is no surface.

    Raises
    ------
    UserError
        Below 2.
    """
    if dim < 2:
        raise UserError(f"a sphere needs at least 2 dimensions, not {dim}")
