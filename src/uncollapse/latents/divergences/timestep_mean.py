"""Timestep-wise regularisation: the mean KL over the steps of a sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from uncollapse.config import TimestepMeanConfig
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.free_bits import with_floor
from uncollapse.latents.inference import Inference


class TimestepMean(Divergence):
    """Mean over t in R of KL(q(z_t|x_≤t) ‖ p(z)), R the last share of the real steps.

    Not the KL of the z that the decoder sees: an objective that uses it is no bound. Steps are
    words, or, of a posterior after every turn of a context, turns.

    References
    ----------
    Li et al. 2020, "Improving Variational Autoencoder for Text Modelling with Timestep-Wise
    Regularisation", eq. 5; ``last`` < 1 are the rows last25, last50 and last75 of Table 3.
    Padded steps, which the official code counts, do not count here.
    """

    def __init__(self, config: TimestepMeanConfig) -> None:
        super().__init__()
        self.last = config.last
        self.floor = config.floor

    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        assert inference.steps is not None
        assert inference.mask is not None
        weight = step_weights(inference.mask, self.last)[:, :, None]  # (B, T, 1)
        # padded steps hold numbers without meaning, perhaps infinite ones: zero times
        # infinity would not be zero
        prior = inference.step_prior or inference.prior
        kl = prior.kl(inference.steps)  # (B, T, D)
        assert kl is not None
        kl = kl.masked_fill(~inference.mask[:, :, None], 0)
        return with_floor((weight * kl).sum(1), self.floor)


def step_weights(mask: Tensor, last: float) -> Tensor:
    """Weights ``(B, T)`` that average over the last ``last`` share of each row's real steps.

    The number of steps is rounded, halves to even, and is at least one.
    """
    lengths = mask.sum(1, keepdim=True)  # (B, 1)
    count = torch.round(lengths * last).clamp(min=1)
    steps = torch.arange(mask.shape[1], device=mask.device)
    inside = mask & (steps >= lengths - count)
    return inside / count
