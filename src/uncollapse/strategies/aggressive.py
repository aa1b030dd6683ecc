"""Aggressive training of the encoder, for as long as it lags behind the decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from uncollapse.config import TrainingConfig
from uncollapse.data.batches import Batch
from uncollapse.model import Model
from uncollapse.strategies.base import Learner, Pass, Strategy
from uncollapse.strategies.optimizers import build_optimizer

WINDOW = 15  # updates of the encoder between two looks at their loss


@dataclass
class AggressiveState:
    """What the strategy remembers between batches.

    Attributes
    ----------
    aggressive : bool
        Whether the encoder still gets updates of its own; once False, it stays so.
    information : float
        Mutual information on the validation set after the last aggressive epoch, nats.
    batches, inner_steps : int
        Batches of the running epoch, and the encoder's own updates in them.
    """

    aggressive: bool = True
    information: float = 0.0
    batches: int = 0
    inner_steps: int = 0


class Aggressive(Strategy):
    """Before every step of the decoder, the encoder learns until its loss stops falling.

    On a batch: the encoder alone is updated, first on this batch and then on random ones, until
    the loss per word over a window of 15 updates is above that of the window before it, or
    as many updates are made as may be. Then the decoder alone is updated, on this batch. The first
    epoch after which the mutual information on the validation set has fallen ends all this for
    good; from then on training is joint.

    References
    ----------
    He et al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational
    Autoencoders", Algorithm 1; windows, caps and the norm of both players by which gradients
    are clipped are those of the code that comes with it.

    Parameters
    ----------
    config : TrainingConfig
    most_updates : int
        Of the encoder, for one of the decoder.
    """

    def __init__(self, config: TrainingConfig, most_updates: int = 99) -> None:
        super().__init__(config)
        self.most_updates = most_updates
        self.state = AggressiveState()

    def optimizers(self, model: Model) -> dict[str, Optimizer]:
        """One for the encoder's side; one for the decoder and the prior."""
        players = model.players()
        generation = [*players["generation"], *players.get("prior", [])]
        return {
            "inference": build_optimizer(self.config, players["inference"]),
            "generation": build_optimizer(self.config, generation),
        }

    def step(self, learner: Learner, batch: Batch) -> Pass:
        """The encoder's updates, then the decoder's; or one update of both."""
        learning = ["generation"]
        if self.state.aggressive:
            self.state.inner_steps += catch_up(learner, batch, self.most_updates)
        else:
            learning.append("inference")
        self.state.batches += 1
        found = learner.loss(batch)
        learner.update(learning, found)
        return found

    def end_epoch(self, validation: Mapping[str, float]) -> dict[str, float]:
        """Stop for good at the first fall of the mutual information, summed over latents."""
        state = self.state
        figures = {
            "aggressive": int(state.aggressive),
            "inner_steps": state.inner_steps / max(1, state.batches),
        }
        state.batches = state.inner_steps = 0
        if state.aggressive:
            now = math.fsum(v for name, v in validation.items() if name.startswith("mi/"))
            state.aggressive = now >= state.information
            state.information = now
        return figures

    def state_dict(self) -> dict[str, Any]:
        """What the strategy remembers, as plain data."""
        return asdict(self.state)

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.state = AggressiveState(**values)


def catch_up(learner: Learner, batch: Batch, most_updates: int) -> int:
    """Update the encoder alone until its loss has stopped falling; returns how often."""
    before = math.inf
    sums: list[torch.Tensor] = []
    for number in range(1, most_updates + 1):
        if number > 1:
            batch = learner.random_batch(number)
        found = learner.loss(batch)
        learner.update(["inference"], found)
        total = found.loss.total.detach() * found.batch.total
        sums.append(torch.stack([total, found.terms.tokens.sum().to(total)]))
        if number % WINDOW == 0:
            loss, words = learner.over_processes(torch.stack(sums).sum(0))
            if loss / words > before:
                return number
            before = loss / words
            sums = []
    return most_updates
