"""When training decays its step size and when it ends: a pure state machine.

The rule is that of the ``vae-lagging-encoder`` code (He et al., 2019), which the later
recurrent text VAEs share: an epoch is *worse* if its validation score is above a reference;
a better or equal one becomes the reference and clears the count. Once ``patience`` worse
epochs have come in a row, from ``start_epoch`` on, the step size decays, and the reference
becomes the score of that epoch, so that the next decay is judged against where this one began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uncollapse.config import PlateauConfig

Action = Literal["go on", "decay", "stop"]


@dataclass
class Plateau:
    """State of the rule.

    Attributes
    ----------
    reference : float or None
        The score to beat (lower is better); None before the first epoch.
    worse : int
        Epochs in a row that were worse than the reference.
    decays : int
        How often the step size has decayed.
    """

    reference: float | None = None
    worse: int = 0
    decays: int = 0

    def update(self, score: float, epoch: int, config: PlateauConfig | None) -> Action:
        """Take the score of a finished epoch and say what follows.

        Parameters
        ----------
        score : float
            Validation score, lower is better.
        epoch : int
            Number of the epoch, from 0: with ``start_epoch`` 15, fifteen epochs cannot decay.
        config : PlateauConfig or None
            None: never decay, never stop.

        Returns
        -------
        {"go on", "decay", "stop"}
            On ``"decay"`` reload the best weights, lower the step size and clear the optimiser.
            The ``max_decays``-th decay is ``"stop"``; so is the first if ``max_decays`` is 0.
        """
        if self.reference is None or score <= self.reference:
            self.reference = score
            self.worse = 0
            return "go on"
        self.worse += 1
        if config is None or self.worse < config.patience or epoch < config.start_epoch:
            return "go on"
        self.reference = score
        self.worse = 0
        self.decays += 1
        return "stop" if self.decays >= config.max_decays else "decay"
