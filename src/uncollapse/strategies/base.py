"""What a strategy is, and what it may ask of the run that it steers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from uncollapse.config import TrainingConfig
from uncollapse.data.batches import Batch
from uncollapse.model import Model
from uncollapse.objectives import Loss
from uncollapse.terms import Terms


@dataclass
class Pass:
    """One forward pass: a batch, its terms, and what they cost."""

    batch: Batch
    terms: Terms
    loss: Loss


class Learner(Protocol):
    """What a strategy may ask of a run. The run knows how to do it, the strategy when."""

    def loss(self, batch: Batch) -> Pass:
        """Run the model and the objective on a batch, with gradients."""
        ...

    def update(self, optimizers: Sequence[str], found: Pass) -> None:
        """One step of the named optimisers against the gradient of a pass.

        Gradients are clipped by their norm over all players, whoever takes the step.

        Raises
        ------
        RunError
            If the loss or a gradient is not finite; then no step is made.
        """
        ...

    def random_batch(self, number: int) -> Batch:
        """A training batch at random: a function of the run's seed, its progress and ``number``."""
        ...

    def over_processes(self, values: Tensor) -> list[float]:
        """Each of some ``values`` ``(N,)``, added up over all processes."""
        ...


class Strategy(ABC):
    """Who learns when: owns the optimisers of the players, and their step size.

    The players are ``inference`` (encoder and posteriors), ``generation`` (decoder and what reads
    contexts) and ``prior`` (its components). The networks of a divergence (``critic``) learn
    before every step of theirs, whatever the strategy.

    Parameters
    ----------
    config : TrainingConfig
        The optimisation settings.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    @abstractmethod
    def optimizers(self, model: Model) -> dict[str, Optimizer]:
        """The optimisers by name; every parameter that learns belongs to one of them."""

    @abstractmethod
    def step(self, learner: Learner, batch: Batch) -> Pass:
        """All updates that a training batch gives rise to.

        Returns
        -------
        Pass
            The pass over ``batch`` that the history counts.
        """

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

    def end_epoch(self, _validation: Mapping[str, float]) -> dict[str, float]:
        """Take the validation means of an epoch, and decide how to go on.

        Returns
        -------
        dict
            What the history says of this epoch besides.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the strategy remembers, as plain data."""
        return {}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        assert not values
