"""Invertible maps of z, the same for all sentences, with exact Jacobian determinants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_SLOPE = 1e-4  # at 0 a layer would be flat in one direction, and have no inverse
MAX_STEPS = 100  # of Newton's method; a handful is usual


class PlanarLayer(nn.Module):
    """f(z) = z + û tanh(w·z + b), with û so bent towards w that f is invertible.

    Along w the map has slope 1 + w·û at the plane w·z + b = 0 and slope 1 far from it. It is
    invertible if and only if the former is positive: û = u + (s − 1 − w·u) w / ‖w‖² makes it
    s = ln(1 + exp(w·u)), kept off zero by a hair, whatever the parameters (w ≠ 0).

    Parameters
    ----------
    dim : int
        D.

    References
    ----------
    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", eqs. 10–12 and
    appendix A.1. Parameters start as in the code of Wang & Wang 2019.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(dim))  # u
        self.normal = nn.Parameter(torch.randn(dim))  # w
        self.offset = nn.Parameter(torch.ones(()))  # b

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., D)``; also give log |det J|, ``(...)``."""
        shift, normal, offset, slope = self._constrained(z)
        # products and sums: under automatic mixed precision, a matrix product would be bf16
        bend = torch.tanh((z * normal).sum(-1) + offset)  # (...)
        return z + shift * bend[..., None], _slope_at(bend, slope).log()

    def inverse(self, z: Tensor) -> Tensor:
        """Undo `forward`, ``(..., D)``; exact to the precision of z's type."""
        shift, normal, offset, slope = self._constrained(z)
        height = solve_height((z * normal).sum(-1) + offset, slope)  # (...)
        return z - shift * torch.tanh(height)[..., None]

    def _constrained(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """û, w, b and the slope s, in the type and on the device of ``like``."""
        shift, normal, offset = (p.to(like) for p in (self.shift, self.normal, self.offset))
        along = (shift * normal).sum()
        slope = F.softplus(along) + MIN_SLOPE
        shift = shift + (slope - 1 - along) * normal / normal.square().sum()
        return shift, normal, offset, slope


class PlanarFlow(nn.Module):
    """``length`` planar layers, one after the other.

    Parameters
    ----------
    dim, length : int
        D, and the number of layers.
    """

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlanarLayer(dim) for _ in range(length))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., D)``; also give log |det J|, ``(...)``."""
        log_det = torch.zeros_like(z[..., 0])
        for layer in self.layers:
            z, own = layer(z)
            log_det = log_det + own
        return z, log_det

    def inputs(self, z: Tensor) -> list[Tensor]:
        """What every layer was given to end at z ``(..., D)``; the first is the inverse of z."""
        found: list[Tensor] = []
        for layer in reversed(self.layers):
            assert isinstance(layer, PlanarLayer)
            z = layer.inverse(z)
            found.append(z)
        return found[::-1]


def _slope_at(bend: Tensor, slope: Tensor) -> Tensor:
    """1 + (s − 1) tanh′, written without the difference: it is as exact for s near 0."""
    square = bend.square()
    return square + slope * (1 - square)


def solve_height(target: Tensor, slope: Tensor) -> Tensor:
    """The a with a + (s − 1) tanh a = c, of the shape of c.

    Newton's method needs no safeguard here. The left side is odd and, for a ≥ 0, concave
    where s ≥ 1 and convex where s < 1; it lies between lines with slopes s (through the
    origin) and 1. Their crossing with c is a start on the side from which each step goes
    towards the root and none beyond it.

    Parameters
    ----------
    target : Tensor
        c, of any shape.
    slope : Tensor
        s > 0, scalar.
    """
    with torch.no_grad():
        aim, excess = target.abs(), slope - 1
        ends = torch.stack([aim / slope, aim - excess])
        height = torch.where(excess > 0, ends.amax(0), ends.amin(0))
        for _ in range(MAX_STEPS):
            bend = torch.tanh(height)
            excess_height = height + excess * bend - aim
            rounding = torch.finfo(aim.dtype).eps * (height + excess.abs() * bend + aim)
            if bool((excess_height.abs() <= 2 * rounding).all()):
                break
            height = height - excess_height / _slope_at(bend, slope)
        height = height * target.sign()
    # one more step, with gradients: those of the root, by the implicit function theorem
    bend = torch.tanh(height)
    rest = height + (slope - 1) * bend - target
    return height - rest / _slope_at(bend, slope).detach()
