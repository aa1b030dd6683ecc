"""A Gaussian prior whose mean and variance are read from the context (CVAE)."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor, nn

from uncollapse.config import ConditionalGaussianConfig
from uncollapse.distributions.base import Distribution, aligned
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.multivariate import MultivariateGaussian
from uncollapse.encoders.context import Condition
from uncollapse.latents.priors.standard_normal import StandardNormal
from uncollapse.precision import widened


class ConditionalGaussian(StandardNormal):
    """p(z|context) = N(μ(context), diag σ²(context)); N(0, I) where there is no context.

    References
    ----------
    Zhao et al. 2017, "Learning Discourse-level Diversity for Neural Dialog Models using
    Conditional Variational Autoencoders", eq. 1; the hidden layer is that of its code.

    Parameters
    ----------
    config : ConditionalGaussianConfig
    condition_dim, dim : int
        C and D.
    """

    given_contexts: DiagonalGaussian | None = None  # (B, D) or (B, U, D)

    def __init__(self, config: ConditionalGaussianConfig, condition_dim: int, dim: int) -> None:
        super().__init__(dim)
        self.network = nn.Sequential(
            nn.Linear(condition_dim, config.hidden_dim),
            nn.Tanh(),
            nn.Linear(config.hidden_dim, 2 * dim),
        )

    def given(self, condition: Condition | None) -> ConditionalGaussian:
        """The prior of the rows of a condition."""
        if condition is None:
            return self
        return self._of(condition.vector, condition.present)

    def given_turns(self, condition: Condition) -> ConditionalGaussian:
        """The prior after each turn, ``(B, max(U, 1), D)``; see `Condition.turns`."""
        vectors, mask = condition.turns()
        there = mask & condition.present[:, None]
        return self._of(vectors, there)

    def _of(self, vector: Tensor, present: Tensor) -> ConditionalGaussian:
        with torch.autocast(vector.device.type, enabled=False):
            found = self.network(widened(vector)) * present[..., None]  # 0, 0 is N(0, I)
        own = copy(self)  # shares the network
        own.given_contexts = DiagonalGaussian(*found.chunk(2, -1))
        return own

    def rsample(self, n: int) -> Tensor:
        """Draw ``(n, D)``, one a row of the condition where there is one, with gradients."""
        if self.given_contexts is None:
            return self.sample(n)
        return self.given_contexts.rsample()

    def sample(
        self, n: int, generator: torch.Generator | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU, one a row of the condition where there is one."""
        noise = super().sample(n, generator, codes)
        if self.given_contexts is None:
            return noise
        own = self.given_contexts.map(lambda part: part.detach().float().cpu())
        return own.mean + (0.5 * own.log_variance).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` ``(..., D)`` or ``(B, S, D)``, nats."""
        if self.given_contexts is None:
            return super().log_prob(z)
        return self.given_contexts.map(lambda part: part.to(z.dtype)).log_prob(z)

    def kl(self, posterior: Distribution) -> Tensor | None:
        """KL(posterior ‖ prior) per dimension; None unless Gaussian and diagonal."""
        if self.given_contexts is None:
            return super().kl(posterior)
        if not isinstance(posterior, DiagonalGaussian):
            return None
        prior = self.given_contexts
        if prior.mean.dim() < posterior.mean.dim():  # one prior for all steps of a sentence
            prior = prior.map(lambda part: part[:, None])
        return posterior.kl(prior)

    def relative(self, posterior: Distribution) -> Distribution:
        """The posterior of (z − μ(context)) / σ(context), whose prior is N(0, I)."""
        prior = self.given_contexts
        if prior is None:
            return posterior
        if isinstance(posterior, MultivariateGaussian):
            unit = (-0.5 * prior.log_variance.to(posterior.factor)).exp()[..., None]  # (B, D, 1)
            return MultivariateGaussian(
                self.relative_points(posterior.mean), unit * posterior.factor
            )
        if not isinstance(posterior, DiagonalGaussian):
            return posterior
        log_variance = posterior.log_variance - prior.log_variance
        return DiagonalGaussian(self.relative_points(posterior.mean), log_variance)

    def relative_points(self, z: Tensor) -> Tensor:
        """(z − μ(context)) / σ(context)."""
        prior = self.given_contexts
        if prior is None:
            return z
        return (z - prior.mean.to(z)) * (-0.5 * prior.log_variance.to(z)).exp()

    def absolute_points(self, z: Tensor) -> Tensor:
        """μ(context) + σ(context) z."""
        if self.given_contexts is None:
            return z
        prior = self.given_contexts.map(lambda part: aligned(part.to(z), z))
        return prior.mean + (0.5 * prior.log_variance).exp() * z

    def anchor(self) -> Tensor:
        """KL(prior ‖ N(0, I)) of each row, summed over dimensions, ``(B,)`` nats."""
        assert self.given_contexts is not None
        return self.given_contexts.kl_standard().sum(-1)
