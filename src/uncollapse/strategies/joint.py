"""Joint training: every parameter of every player learns in every step.

A strategy decides which parameters an optimiser holds. The players are ``inference``
(encoder and latents) and ``generation`` (decoder); joint training is the case in which one
optimiser holds both, so that Lightning's automatic optimisation does the whole step.
"""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from uncollapse.config import TrainingConfig
from uncollapse.strategies.base import Strategy

# the devices for which PyTorch has a fused kernel of both optimisers
FUSED_DEVICES = {"cpu", "cuda", "mps"}


class Joint(Strategy):
    """One optimiser, one update a batch.

    Parameters
    ----------
    config : TrainingConfig
        The ``training`` section of the recipe.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    def optimizer(self, module: nn.Module) -> Optimizer:
        """Build the optimiser over every trainable parameter of ``module``.

        The fused kernels are the exact algorithms (dense Adam with coupled weight decay; SGD
        without momentum) in one pass over the parameters.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        fused = {p.device.type for p in parameters} <= FUSED_DEVICES
        config = self.config
        if config.optimizer == "sgd":
            return SGD(
                parameters, config.learning_rate, weight_decay=config.weight_decay, fused=fused
            )
        return Adam(
            parameters,
            config.learning_rate,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=fused,
        )

    def learning_rate(self, epoch: int, decays: int) -> float:
        """Step size in ``epoch`` (from 0) after ``decays`` decays of the plateau rule.

        With ``cosine_period_epochs`` the rate also follows lr · ½ (1 + cos(π · position)), where
        position is the share of the period that lies behind; it is set once an epoch.
        """
        config = self.config
        rate = config.learning_rate
        if config.plateau is not None:
            rate *= config.plateau.factor**decays
        if config.cosine_period_epochs is not None:
            position = epoch % config.cosine_period_epochs / config.cosine_period_epochs
            rate *= 0.5 * (1 + math.cos(math.pi * position))
        return rate
