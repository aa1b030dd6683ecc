"""The Gumbel-softmax: samples of discrete variables through which gradients pass."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import RelaxationConfig
from uncollapse.distributions.exponential import FiniteFamily


class GumbelSoftmax:
    """A relaxed sample of a discrete variable, or a code with the gradient of one.

    Parameters
    ----------
    family : FiniteFamily
    config : RelaxationConfig
    """

    def __init__(self, family: FiniteFamily, config: RelaxationConfig) -> None:
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
        soft = self.family.relaxed(natural, self.temperature)
        if not self.config.straight_through:
            return soft
        # exact where it counts: soft − soft would leave rounding in the code
        return self.family.nearest(soft).detach() + (soft - soft.detach())
