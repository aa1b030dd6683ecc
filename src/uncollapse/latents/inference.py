"""What inference finds out about one latent of a batch of sentences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution


@dataclass
class Inference:
    """A latent's posterior, and how it came about.

    Parameters
    ----------
    posterior : Distribution
        ``(B, D)``: the distribution of the z that the decoder sees.
    features : Tensor
        ``(B, H)``: what the posterior was read from; with a posterior at every step, what the
        last real one was.
    steps : Distribution, optional
        ``(B, T, D)``: the posteriors at every step, where there are such.
    mask : Tensor, optional
        ``(B, T)``: which steps are real.
    z : Tensor, optional
        ``(B, D)``: the sample that the decoder sees, once it is drawn.
    log_prob : Tensor, optional
        ``(B,)``: its log-density under the posterior, where this has one.
    """

    posterior: Distribution
    features: Tensor
    steps: Distribution | None = None
    mask: Tensor | None = None
    z: Tensor | None = None
    log_prob: Tensor | None = None

    def draw(self) -> Tensor:
        """Draw the z ``(B, D)`` that the decoder sees, once."""
        if self.z is None:
            with torch.autocast(self.features.device.type, enabled=False):
                if self.posterior.has_density:
                    self.z, self.log_prob = self.posterior.rsample_with_log_prob()
                else:
                    self.z = self.posterior.rsample()
        return self.z
