"""The Gumbel-softmax: samples of discrete variables through which gradients pass."""

from __future__ import annotations

import torch
from torch import Tensor

from uncollapse.config import RelaxationConfig
from uncollapse.distributions.exponential import ExponentialFamily
from uncollapse.distributions.families import Categorical


class GumbelSoftmax:
    """A relaxed sample of a categorical or Bernoulli variable.

    References
    ----------
    Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"; Maddison et al.
    2017, "The Concrete Distribution" (the binary form).

    Parameters
    ----------
    family : ExponentialFamily
        Categorical or Bernoulli.
    config : RelaxationConfig
    """

    def __init__(self, family: ExponentialFamily, config: RelaxationConfig) -> None:
        self.family = family
        self.config = config
        self.temperature = config.temperature

    def schedule(self, epochs: float) -> None:
        """Set the temperature of a moment in training, a geometric course."""
        config = self.config
        if config.final is not None:
            share = min(1.0, epochs / config.epochs)
            self.temperature = config.temperature ** (1 - share) * config.final**share

    def __call__(self, natural: Tensor) -> Tensor:
        """Draw ``(..., E)`` of natural parameters ``(..., P)``, with gradients."""
        if isinstance(self.family, Categorical):
            logits = self.family.logits(natural)  # (..., K)
            noise = -torch.empty_like(logits).exponential_().log()
            soft = ((logits + noise) / self.temperature).softmax(-1)
        else:
            noise = torch.rand_like(natural).clamp(min=torch.finfo(natural.dtype).tiny)
            soft = ((natural + noise.logit()) / self.temperature).sigmoid()  # (..., 1)
        if not self.config.straight_through:
            return soft
        # exact where it counts: soft − soft would leave rounding in the code
        return self.family.nearest(soft).detach() + (soft - soft.detach())
