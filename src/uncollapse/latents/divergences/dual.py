"""The KL divergence in its dual form, for posteriors that have samples and no density."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import DualConfig
from uncollapse.latents.divergences.base import Divergence, beside, context_vector
from uncollapse.latents.inference import Inference


class DualDivergence(Divergence):
    """KL(q ‖ p) = sup_ν E_q ν(z) − E_p exp ν(z) + 1, with a network for ν.

    A network that has not learned enough gives too little: the objective is no bound, and what
    it prints as a likelihood flatters. Both networks always learn, ν(z, x) for the posterior of
    a sentence and ν(z) for the aggregate posterior; the objective charges one of them, and the
    difference of the two estimates the mutual information. Given contexts the second is
    ν(z, context), for the posteriors of all responses to one context, and p their prior.

    References
    ----------
    Fang et al. 2019, "Implicit Deep Latent Variable Models for Text Generation", eqs. 5–8 and
    12 (iVAE and iVAE_MI).

    Parameters
    ----------
    config : DualConfig
        What is charged, and how the networks learn.
    feature_dim, dim, condition_dim : int
        H, D and, 0 without contexts, C.
    """

    needs_density = False

    def __init__(
        self, config: DualConfig, feature_dim: int, dim: int, condition_dim: int = 0
    ) -> None:
        super().__init__()
        self.of = config.of
        self.critic = config.critic
        self.conditional = _network(dim + feature_dim, config.hidden_dim)
        self.aggregate = _network(dim + condition_dim, config.hidden_dim)

    def forward(self, inference: Inference) -> Tensor:
        """The learned KL, nats per sentence, ``(B,)``; its mean is what it estimates."""
        other = inference.prior.rsample(len(inference.draw()))
        conditional, aggregate = self._at_draws(inference, other)
        return conditional if self.of == "conditional" else aggregate

    def critic_loss(self, inference: Inference) -> Tensor:
        """What the networks lower, ``(B,)``: minus both estimates."""
        with torch.no_grad():
            other = inference.prior.rsample(len(inference.draw()))
        conditional, aggregate = self._at_draws(inference, other)
        return -(conditional + aggregate)

    def estimates(
        self, z: Tensor, other: Tensor, features: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both learned divergences, of each sentence's posterior and of the aggregate, nats.

        Parameters
        ----------
        z, other : Tensor
            ``(B, D)``: drawn from the posteriors and from the prior.
        features : Tensor
            ``(B, H)``: the sentences.
        context : Tensor, optional
            ``(B, C)``: their contexts.

        Returns
        -------
        conditional, aggregate : Tensor
            ``(B,)`` float64; their means are the estimates.
        """
        return (
            _dual(
                self.conditional(torch.cat([z, features], -1)),
                self.conditional(torch.cat([other, features], -1)),
            ),
            _dual(self.aggregate(beside(z, context)), self.aggregate(beside(other, context))),
        )

    def _at_draws(self, inference: Inference, other: Tensor) -> tuple[Tensor, Tensor]:
        z = inference.draw()  # (B, D)
        # the sentence is what ν is conditioned on, not something that ν may change
        features = inference.features.detach()  # (B, H)
        with torch.autocast(z.device.type, enabled=False):
            conditional, aggregate = self.estimates(
                z, other.to(z), features, context_vector(inference.condition)
            )
        return conditional.to(z.dtype), aggregate.to(z.dtype)


def _dual(of_posterior: Tensor, of_prior: Tensor) -> Tensor:
    """ν(z) − exp ν(z′) + 1, as expm1: it is 0 without loss where ν is 0."""
    # float64: exp of a log-ratio leaves float32 at 88 nats
    return (of_posterior.double() - torch.expm1(of_prior.double())).squeeze(-1)


def _network(width: int, hidden: int) -> nn.Sequential:
    """Three hidden layers, as in the official code."""
    layers: list[nn.Module] = []
    for size in (width, hidden, hidden):
        layers += [nn.Linear(size, hidden), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 1))
