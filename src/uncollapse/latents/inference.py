"""What inference finds out about one latent of a batch of sentences."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uncollapse.distributions.gaussian import DiagonalGaussian


@dataclass
class Inference:
    """A latent's posterior, and how it came about.

    Parameters
    ----------
    posterior : DiagonalGaussian
        ``(B, D)``: the distribution of the z that the decoder sees.
    steps : DiagonalGaussian, optional
        ``(B, T, D)``: the posteriors at every step, where there are such.
    mask : Tensor, optional
        ``(B, T)``: which steps are real.
    """

    posterior: DiagonalGaussian
    steps: DiagonalGaussian | None = None
    mask: Tensor | None = None
