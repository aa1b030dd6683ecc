"""The critic: networks of divergences, which learn before every step of the players."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Adam

from uncollapse.config import CriticConfig
from uncollapse.data.batches import Batch
from uncollapse.model import Model
from uncollapse.training.processes import processes


class Critic:
    """Learns with Adam at a step size of its own, which no schedule changes.

    Parameters
    ----------
    model : Model
        Holds the critic's parameters and knows its loss.
    settings : CriticConfig
    """

    def __init__(self, model: Model, settings: CriticConfig) -> None:
        self.model = model
        self.steps = settings.steps
        self.parameters = model.players()["critic"]
        self.optimizer = Adam(self.parameters, settings.learning_rate, fused=True)

    def lesson(self, batch: Batch) -> Callable[[], Tensor]:
        """What is lowered, ``(B,)``, computed anew whenever it is asked for."""
        # not what the players then learn from, of which dropout leaves other units
        with torch.no_grad():
            found = self.model.infer(batch)
        return lambda: self.model.critic_loss(found)

    def learn(self, batch: Batch) -> bool:
        """Take all steps that a batch gives rise to.

        Returns
        -------
        bool
            False where the loss or a gradient is not finite, in every process alike; that
            step is not made.
        """
        lesson = self.lesson(batch)
        for _ in range(self.steps):
            loss = lesson()  # (B,)
            with torch.autocast(loss.device.type, enabled=False):
                # not `backward`: that would wait for the players' gradients of all processes
                gradients = torch.autograd.grad(loss.sum() / batch.total, self.parameters)
            together = torch.cat([loss.detach().sum()[None], *(g.flatten() for g in gradients)])
            if processes() > 1:
                dist.all_reduce(together)
            if not together.isfinite().all():
                return False
            parts = together[1:].split([p.numel() for p in self.parameters])
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return True
