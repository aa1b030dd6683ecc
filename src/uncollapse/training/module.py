"""The Lightning module: what one training batch and one validation batch do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from uncollapse.errors import RunError
from uncollapse.objectives.schedules import Progress
from uncollapse.training.guard import find_nonfinite
from uncollapse.training.processes import any_process, gather_objects, processes
from uncollapse.training.state import RunState
from uncollapse.training.totals import Totals
from uncollapse.training.validation import Validation

if TYPE_CHECKING:
    from uncollapse.config import TrainingConfig
    from uncollapse.data.batches import Batch
    from uncollapse.model import Model, Terms
    from uncollapse.objectives.objective import Loss, Objective
    from uncollapse.strategies.base import Strategy


class TrainingModule(LightningModule):
    """One model under one objective.

    Parameters
    ----------
    model : Model
    objective : Objective
    strategy : Strategy
        Owns the optimiser.
    config : TrainingConfig
    state : RunState
        Shared with the callbacks, which keep it current.
    validation : Validation
        Sums of the validation pass.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        strategy: Strategy,
        config: TrainingConfig,
        state: RunState,
        validation: Validation,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.strategy = strategy
        self.config = config
        self.state = state
        self.validation = validation
        self.totals = Totals(state.totals)
        self.kl_weight = 0.0
        self._step: tuple[Terms, Loss, Batch] | None = None

    def configure_optimizers(self) -> Optimizer:
        return self.strategy.optimizer(self)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _number: int) -> Batch:
        return batch.to(device)

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        terms = self.model(batch)
        progress = Progress(self.state.batches_seen, self.state.batches_per_epoch)
        loss = self.objective(terms, batch.total, progress)
        self.kl_weight = float(loss.weight)
        self._step = terms, loss, batch
        sums = {
            "loss": loss.total * batch.total,
            "reconstruction": terms.reconstruction.sum(),
            "tokens": terms.tokens.sum(),
            "sentences": torch.tensor(batch.size),
        }
        sums |= {f"kl/{name}": kl.sum() for name, kl in terms.kl.items()}
        self.totals.add(sums)
        # the loss is a share of the global batch mean, and processes *average* their gradients
        return loss.total * processes()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        **_: Any,
    ) -> None:
        """Clip by norm; the last stop before the update, hence where non-finite steps end."""
        assert self._step is not None
        loss = self._step[1].total
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        # one read of the device a step: the price of stopping before the update
        if any_process([not bool(torch.isfinite(norm + loss.detach()))], norm.device)[0]:
            self._refuse()
        if gradient_clip_val is not None:
            clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        self._step = None  # frees the graph's last references

    def _refuse(self) -> None:
        """Stop every process together, naming what the first of them found."""
        assert self._step is not None
        terms, loss, batch = self._step
        found = [name for name in gather_objects(find_nonfinite(terms, loss, batch, self)) if name]
        raise RunError(
            f"non-finite {found[0] if found else 'gradient norm (beyond float32)'} in batch "
            f"{self.state.batches_seen + 1} (epoch {self.state.epoch + 1}); "
            "this batch's update was not made"
        )

    def validation_step(self, batch: Batch, _index: int) -> None:
        # in f32, like every published figure: bf16 rounds each token's loss to 0.4 %
        with torch.autocast(batch.tokens.device.type, enabled=False):
            self.validation.add(self.model(batch), batch)

    def lr_scheduler_step(self, *_: Any) -> None:
        """No Lightning scheduler: the rate is set once an epoch from the run's own state."""
