"""Joint training: all players learn in every step, with one optimiser."""

from __future__ import annotations

from torch.optim import Optimizer

from uncollapse.data.batches import Batch
from uncollapse.model import Model
from uncollapse.strategies.base import Learner, Pass, Strategy
from uncollapse.strategies.optimizers import build_optimizer


class Joint(Strategy):
    """One optimiser, one update a batch."""

    def optimizers(self, model: Model) -> dict[str, Optimizer]:
        """One, over all players that a stage lets learn."""
        players = model.players()
        names = ("inference", "generation", "prior")
        learning = [parameter for name in names for parameter in players.get(name, [])]
        return {"joint": build_optimizer(self.config, learning)}

    def step(self, learner: Learner, batch: Batch) -> Pass:
        """One pass, one update."""
        found = learner.loss(batch)
        learner.update(["joint"], found)
        return found
