"""What inference finds out about one latent of a batch of sentences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.encoders.context import Condition
from uncollapse.latents.priors import Mixture, MixtureKL, Prior


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
    prior : Prior
        Of the rows of the batch, given their contexts.
    condition : Condition, optional
        Their contexts.
    steps : Distribution, optional
        ``(B, T, D)``: the posteriors at every step, where there are such.
    step_prior : Prior, optional
        The prior of each of these.
    mask : Tensor, optional
        ``(B, T)``: which steps are real.
    z : Tensor, optional
        ``(B, D)``: the sample that the decoder sees, once it is drawn.
    log_prob : Tensor, optional
        ``(B,)``: its log-density under the posterior, where this has one.
    log_weights : Tensor, optional
        ``(B, M, K)``: log q(c|x) of the M components, where the prior is a mixture.
    """

    posterior: Distribution
    features: Tensor
    prior: Prior
    condition: Condition | None = None
    steps: Distribution | None = None
    step_prior: Prior | None = None
    mask: Tensor | None = None
    z: Tensor | None = None
    log_prob: Tensor | None = None
    log_weights: Tensor | None = None
    _mixture_kl: MixtureKL | None = None

    def draw(self) -> Tensor:
        """Draw the z ``(B, D)`` that the decoder sees, once."""
        if self.z is None:
            with torch.autocast(self.features.device.type, enabled=False):
                if self.posterior.has_density:
                    self.z, self.log_prob = self.posterior.rsample_with_log_prob()
                else:
                    self.z = self.posterior.rsample()
        return self.z

    @property
    def relative(self) -> Distribution:
        """The posterior in coordinates in which the prior is the same in every context."""
        return self.prior.relative(self.posterior)

    def mixture_kl(self) -> MixtureKL:
        """The parts of the KL to a mixture prior, computed once."""
        if self._mixture_kl is None:
            prior = self.prior
            assert isinstance(prior, Mixture)
            assert self.log_weights is not None
            with torch.autocast(self.features.device.type, enabled=False):
                self._mixture_kl = prior.decompose(self.posterior, self.log_weights)
        return self._mixture_kl
