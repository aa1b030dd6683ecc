"""The Lightning module: what one training batch and one validation batch do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from uncollapse.embedding import gradient_values
from uncollapse.errors import RunError
from uncollapse.latents.posteriors.refined import RefinedPosterior
from uncollapse.objectives.schedules import Progress, weight_at
from uncollapse.strategies.base import Pass
from uncollapse.strategies.lazy_adam import keep_tables, let_go_of_tables
from uncollapse.strategies.optimizers import step_scaled
from uncollapse.training.adversarial import AdversarialCritic, adversarial_terms
from uncollapse.training.critic import Critic
from uncollapse.training.guard import find_nonfinite
from uncollapse.training.processes import any_process, gather_objects, processes
from uncollapse.training.state import RunState
from uncollapse.training.totals import Totals
from uncollapse.training.validation import Validation

if TYPE_CHECKING:
    from uncollapse.config import TrainingConfig
    from uncollapse.data.batches import Batch, BucketedBatches
    from uncollapse.model import Model
    from uncollapse.objectives.objective import Objective
    from uncollapse.strategies.base import Strategy


class TrainingModule(LightningModule):
    """One model under one objective; the :class:`~uncollapse.strategies.base.Learner` of a run.

    Parameters
    ----------
    model : Model
    objective : Objective
    strategy : Strategy
        Owns the optimisers of the players, and says when they step.
    config : TrainingConfig
    state : RunState
        Shared with the callbacks, which keep it current.
    batches : BucketedBatches
        Where random batches come from.
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
        batches: BucketedBatches,
        validation: Validation,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.strategy = strategy
        self.config = config
        self.state = state
        self.batches = batches
        self.validation = validation
        self.totals = Totals(state.totals)
        self.kl_weight = 0.0
        self.critic: Critic | None = None
        self.optimizer_of: dict[str, Optimizer] = {}  # of the players

    def configure_optimizers(self) -> list[Optimizer]:
        self.optimizer_of = self.strategy.optimizers(self.model)
        settings = self.model.critic_settings()
        learns = any(p.requires_grad for p in self.model.players().get("critic", []))
        self.critic = Critic(self.model, settings) if settings is not None and learns else None
        if self.objective.adversarial is not None:
            self.critic = AdversarialCritic(self.model, self.objective.adversarial)
        if processes() == 1 and not self._reads_whole_tables():
            keep_tables(self.model, self.optimizer_of.values())
        return list(self.every_optimizer().values())

    def every_optimizer(self) -> dict[str, Optimizer]:
        """Those of the players, by name, and the critic's."""
        critic = {} if self.critic is None else {"critic": self.critic.optimizer}
        return self.optimizer_of | critic

    def _reads_whole_tables(self) -> bool:
        """Whether a step reads all embeddings, so that none can be left behind."""
        refined = any(isinstance(part, RefinedPosterior) for part in self.model.modules())
        forced = bool(self.model.objective.attribute_forcing)
        return refined or forced or self.objective.adversarial is not None

    def teardown(self, stage: str) -> None:  # noqa: ARG002 (the name is Lightning's)
        let_go_of_tables(self.optimizer_of.values())

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _number: int) -> Batch:
        return batch.to(device)

    def training_step(self, batch: Batch, _index: int) -> None:
        found = self.strategy.step(self, batch)
        terms = found.terms
        sums = {
            "loss": found.loss.total * batch.total,
            "reconstruction": terms.reconstruction.sum(),
            "tokens": terms.tokens.sum(),
            "sentences": torch.tensor(batch.size),
        }
        sums |= {f"kl/{name}": kl.sum() for name, kl in terms.kl.items()}
        if "reward" in terms.extra:
            sums["reward"] = terms.extra["reward"].sum()
        self.totals.add(sums)

    def loss(self, batch: Batch) -> Pass:
        """Run the model and the objective on a batch, with gradients; the critic learns first."""
        if self.critic is not None and not self.critic.learn(batch):
            self._refuse("loss of the critic")
        progress = Progress(self.state.batches_seen, self.state.batches_per_epoch)
        self.model.schedule(progress.epochs)
        condition = self.model.read(batch)
        terms = self.model(batch, weight_at(self.objective.schedule, progress), condition)
        adversarial = self.objective.adversarial
        if adversarial is not None:
            listens = self.state.batches_seen >= adversarial.warmup_batches
            terms.extra |= adversarial_terms(
                self.model, condition, batch.size, adversarial, listens=listens
            )
        loss = self.objective(terms, batch.total, progress)
        self.kl_weight = float(loss.weight)
        return Pass(batch, terms, loss)

    def update(self, optimizers: Sequence[str], found: Pass) -> None:
        """One step of the named optimisers against the gradient of a pass."""
        # the critic's too: what it gets from the players' loss is not for it
        for optimizer in self.every_optimizer().values():
            optimizer.zero_grad()
        # autocast is for forward passes: it would round the f32 parts of this one
        with torch.autocast(self.device.type, enabled=False):
            # the loss is a share of the global batch mean, and processes *average* gradients
            self.manual_backward(found.loss.total * processes())
        factor = self._clipping(found)
        for name in optimizers:
            step_scaled(self.optimizer_of[name], factor)

    def random_batch(self, number: int) -> Batch:
        """A training batch at random: a function of the run's seed, its progress and ``number``."""
        epoch, batch = self.state.place
        return self.batches.random_batch(epoch, (batch, number)).to(self.device)

    def over_processes(self, values: Tensor) -> list[float]:
        """Each of some ``values`` ``(N,)``, added up over all processes."""
        if processes() > 1:
            dist.all_reduce(values)
        return values.tolist()

    def _clipping(self, found: Pass) -> float:
        """What to scale gradients by to clip them by norm.

        It is the last stop before the update, hence where steps that are not finite end.
        """
        held = [o.param_groups for o in self.optimizer_of.values()]
        parameters = [p for groups in held for group in groups for p in group["params"]]
        gradients = [gradient_values(p) for p in parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        # one read of the device an update: the price of stopping before it
        norm, total = torch.stack([norm, found.loss.total.detach().to(norm)]).tolist()
        sane = math.isfinite(norm) and math.isfinite(total)
        if any_process([not sane], self.device)[0]:
            self._refuse(find_nonfinite(found.terms, found.loss, found.batch, self))
        limit = self.config.clip_norm
        # as PyTorch puts it
        return 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))

    def _refuse(self, what: str | None) -> None:
        """Stop every process together, naming what the first of them found."""
        named = [name for name in gather_objects(what) if name]
        raise RunError(
            f"non-finite {named[0] if named else 'gradient norm (beyond float32)'} in batch "
            f"{self.state.batches_seen + 1} (epoch {self.state.epoch + 1}); "
            "this batch's update was not made"
        )

    def validation_step(self, batch: Batch, _index: int) -> None:
        # in f32, like every published figure: bf16 rounds each token's loss to 0.4 %
        with torch.autocast(batch.tokens.device.type, enabled=False):
            self.validation.add(self.model(batch), batch)

    def lr_scheduler_step(self, *_: Any) -> None:
        """No Lightning scheduler: the rate is set once an epoch from the run's own state."""
